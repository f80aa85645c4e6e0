"""The simulator that is built in: a car in the traffic of a small town, or of any OpenDRIVE file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.runtime import roads
from worldrt.runtime.conditions._configured import Configured
from worldrt.runtime.conditions._painter import Painter
from worldrt.runtime.conditions._settings import Settings, settings_of
from worldrt.runtime.conditions.base import ConditionFrame, Float64, Warn, driven
from worldrt.runtime.roads.marks import polylines
from worldrt.runtime.roads.network import Network, network, reader_of
from worldrt.runtime.roads.reader import parse_map, read_bytes
from worldrt.runtime.scene.cameras import axle_from_middle
from worldrt.runtime.scene.drawing import pillow
from worldrt.runtime.scene.labels import label_picture
from worldrt.runtime.scene.lines import MapLines
from worldrt.runtime.scene.prompt import Weather, prompt_of, things_in
from worldrt.runtime.traffic.streets import Streets
from worldrt.runtime.traffic.traffic import Traffic

COARSE = 3  # points of a path from one quad to the next
TOWN = Path(roads.__path__[0]) / "data" / "town.xodr"


def open_source(config: Mapping[str, Any], *, fps: float | None, seed: int, warn: Warn) -> DriveSource:
    """Raises `InputError`, also for roads that cannot be read, and where Pillow is not installed."""
    pillow()
    return DriveSource(settings_of(config, fps), seed)


class DriveSource(Configured):
    """A `ConditionSource`: the same frames for the same settings, seed and controls. Without a control the car keeps
    its lane by itself."""

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(settings)
        path = TOWN if settings.roads is None else Path(settings.roads)
        data = read_bytes(path)
        made = parse_map(data, path.name)
        paths = network(made, data, settings.map_reader)
        self._roads_sha256 = hashlib.sha256(data).hexdigest()
        self._quads = surface(paths)
        self._traffic = Traffic(Streets(paths), vehicles=settings.vehicles, walkers=settings.walkers, seed=seed)
        cameras = settings.cameras
        self._painter = Painter(
            self.views,
            (cameras[0].width_px, cameras[0].height_px),
            np.stack([camera.intrinsics for camera in cameras]),
            MapLines(polylines(made)),
            settings,
        )
        self._mounts = [camera.mount for camera in cameras]
        self._index = 0

    def facts(self) -> Mapping[str, Any]:
        s = self._settings
        return {
            "source": "drive",
            "roads": self._roads_sha256,
            "map_reader": reader_of(s.map_reader),
            "traffic": [s.vehicles, s.walkers],
            "cameras": [[c.name, *self.size_px, c.fov_deg, *c.location_m, *c.rotation_deg] for c in s.cameras],
            "rear_axle_m": s.rear_axle_m,
            "fps": s.fps,
            "said": [s.surroundings, list(astuple(s.weather or Weather())), s.least_share],
            "drawn": [[style.reach_m, style.pen_px, json.dumps(dict(style.colors))] for style in (s.boxes, s.lines)],
        }

    def next(self, control: str | None) -> ConditionFrame:
        control = driven(control)
        self._traffic.tick(control, 1 / self.fps)
        frame = self._frame()
        self._index += 1
        return frame

    def state(self) -> Any:
        return self._index, self._traffic.state()

    def restore(self, state: Any) -> None:
        self._index = state[0]
        self._traffic.restore(state[1])

    def close(self) -> None:
        """There is nothing to let go."""

    def _frame(self) -> ConditionFrame:
        ego, boxes, settings = self._traffic.ego_pose, self._traffic.boxes(), self._settings
        middle = ego @ axle_from_middle(settings.rear_axle_m)
        bodies: list[Float64] = [np.asarray(middle @ mount, np.float64) for mount in self._mounts]
        eyes = [body[:3, 3] for body in bodies]
        projections = self._painter.projections([np.asarray(np.linalg.inv(body), np.float64) for body in bodies])
        text = []
        for projection, eye in zip(projections, eyes, strict=True):
            labels = label_picture(self._painter.size_px, projection, eye, self._quads, boxes)
            things = things_in(labels, settings.least_share)
            text.append(prompt_of(settings.weather or Weather(), settings.surroundings, things))
        return self._painter.frame(self._index, projections, eyes, self._mounts, boxes, ego, text)


def surface(paths: Network) -> Float64:
    """All lanes as quads (n, 4, 3) between their borders, a few metres long."""
    quads = [np.empty((0, 4, 3))]
    for path in paths.values():
        some = np.unique(np.append(np.arange(0, len(path.points), COARSE), len(path.points) - 1))
        heading = path.headings_rad[some]
        normal = np.stack((-np.sin(heading), np.cos(heading), np.zeros(len(some))), axis=1)
        half = path.widths_m[some, None] / 2 * normal
        left, right = path.points[some] + half, path.points[some] - half
        quads.append(np.stack((left[:-1], left[1:], right[1:], right[:-1]), axis=1))
    return np.concatenate(quads)
