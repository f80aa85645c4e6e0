"""A CARLA simulator that runs somewhere: its traffic as conditions, its hero steered by our controls.

A simulator that goes away is waited for, longer each time; what it was given before is given again when it is back.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.conditions._carla_link import Link
from worldrt.runtime.conditions._configured import Configured
from worldrt.runtime.conditions._painter import Painter
from worldrt.runtime.conditions._settings import Settings, settings_of
from worldrt.runtime.conditions.base import ConditionFrame, Float64, Warn, driven
from worldrt.runtime.roads.marks import polylines
from worldrt.runtime.roads.reader import parse_map
from worldrt.runtime.scene.boxes import Box
from worldrt.runtime.scene.cameras import axle_from_middle, intrinsics
from worldrt.runtime.scene.drawing import pillow
from worldrt.runtime.scene.lines import MapLines
from worldrt.runtime.scene.poses import flipped
from worldrt.runtime.scene.prompt import Weather, prompt_of, things_in

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0


def open_source(config: Mapping[str, Any], *, fps: float | None, seed: int, warn: Warn) -> CarlaSource:
    """Connect. Raises `InputError` where the package or Pillow is not installed, or no simulator answers."""
    pillow()
    settings = settings_of(config, fps)
    try:
        api = importlib.import_module("carla")
    except ImportError as error:
        raise InputError("the source carla needs CARLA's package: pip install 'worldrt[carla]'") from error
    return CarlaSource(settings, seed, api, warn=warn)


class CarlaSource(Configured):
    """A `ConditionSource`. `api` is the carla package, `sleep` waits for so many seconds."""

    def __init__(
        self,
        settings: Settings,
        seed: int,
        api: Any,
        *,
        warn: Warn = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(settings)
        self._seed, self._api, self._warn, self._sleep = seed, api, warn, sleep
        self._index = 0
        self._link: Link | None = None
        try:
            self._connect()
        except RuntimeError as error:
            raise InputError(
                f"carla: no simulator answers at {self.place} ({_told(error)}); start one, such as ./CarlaUE4.sh "
                "-RenderOffScreen, or give host and port in the configuration"
            ) from error

    @property
    def place(self) -> str:
        """Where the simulator is."""
        return f"{self._settings.host}:{self._settings.port}"

    def facts(self) -> Mapping[str, Any]:
        return {"source": "carla", "place": self.place, "views": list(self.views), "fps": self.fps}

    def next(self, control: str | None) -> ConditionFrame:
        control = driven(control)
        waited_s, wait_s, error = 0.0, FIRST_WAIT_S, RuntimeError("it was closed")
        while True:
            try:
                if self._link is None:
                    self._connect()
                frame = self._frame(control)
                self._index += 1
                return frame
            except RuntimeError as caught:
                error = caught
            self._let_go()
            if waited_s >= self._settings.patience_s:
                raise InputError(
                    f"carla: the simulator at {self.place} is gone ({_told(error)}), and was not back "
                    f"in {waited_s:g} s; start it again and go on"
                ) from error
            self._warn(f"carla {self.place}: waiting ({_told(error)})")
            self._sleep(wait_s)
            waited_s, wait_s = waited_s + wait_s, min(2 * wait_s, LONGEST_WAIT_S)

    def state(self) -> Any:
        return None

    def restore(self, state: Any) -> None:
        """The simulator cannot be turned back, and goes on."""

    def close(self) -> None:
        self._let_go()

    def _connect(self) -> None:
        link = Link(self._api, self._settings, self._seed)
        try:
            data = str(link.world.get_map().to_opendrive()).encode()
            lines = MapLines(polylines(parse_map(data, f"the map of {self.place}")))
            cameras = self._settings.cameras
            sensors = [link.cameras[camera.name] for camera in cameras]
            size = cameras[0].width_px, cameras[0].height_px
            matrices = np.stack([intrinsics(*size, float(sensor.attributes["fov"])) for sensor in sensors])
            self._painter = Painter(self.views, size, matrices, lines, self._settings)
        except BaseException:
            link.close()
            raise
        self._link = link
        self._warn(f"carla {self.place}: connected")

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _frame(self, control: str | None) -> ConditionFrame:
        link, settings = self._link, self._settings
        assert link is not None
        link.drive(control)
        labels = link.labels(link.tick())
        weather = settings.weather or weather_of(link.world.get_weather())
        text = [prompt_of(weather, settings.surroundings, things_in(seen, settings.least_share)) for seen in labels]
        ego = _matrix(link.ego.get_transform().get_matrix())
        places = [sensor.get_transform() for sensor in link.cameras.values()]
        bodies = [_matrix(place.get_matrix()) for place in places]
        mounts = [flipped(np.asarray(np.linalg.solve(ego, body), np.float64)) for body in bodies]
        return self._painter.frame(
            self._index,
            self._painter.projections([flipped(_matrix(place.get_inverse_matrix())) for place in places]),
            [flipped(body)[:3, 3] for body in bodies],
            mounts,
            [box for actor in link.others() if (box := box_of(actor)) is not None],
            flipped(ego) @ np.linalg.inv(axle_from_middle(settings.rear_axle_m)),
            text,
        )


def box_of(actor: Any) -> Box | None:
    """The box of a vehicle or walker; None for a kind that has no name."""
    label = "pedestrian" if actor.type_id.startswith("walker") else str(actor.attributes.get("base_type", "")).lower()
    box = actor.bounding_box
    if not label:
        return None
    half, offset = ((vector.x, vector.y, vector.z) for vector in (box.extent, box.location))
    return Box(label, flipped(_matrix(actor.get_transform().get_matrix())), half, (offset[0], -offset[1], offset[2]))


def weather_of(found: Any) -> Weather:
    """The weather as the simulator has it."""
    return Weather(found.sun_altitude_angle, found.precipitation, found.fog_density, found.cloudiness)


def _matrix(rows: Any) -> Float64:
    return np.array(rows, np.float64)


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
