"""What all sources make of a scene: the pictures of each camera, and the words for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldrt.runtime.conditions._settings import Settings
from worldrt.runtime.conditions.base import Cameras, ConditionFrame, Float64
from worldrt.runtime.scene.boxes import Box, box_segments
from worldrt.runtime.scene.cameras import image_from_world, transforms
from worldrt.runtime.scene.drawing import Picture, draw_lines
from worldrt.runtime.scene.lines import MapLines


class Painter:
    """Draws frames for cameras of given intrinsics (V, 3, 3), of pictures of one size."""

    def __init__(
        self, names: Sequence[str], size_px: tuple[int, int], intrinsics: Float64, lines: MapLines, settings: Settings
    ) -> None:
        self.names, self.size_px, self.intrinsics = tuple(names), size_px, intrinsics
        self._lines, self._settings = lines, settings

    def projections(self, bodies_from_world: Sequence[Float64]) -> list[Float64]:
        """From the world to each image, of the inverses of the cameras' poses."""
        return [image_from_world(k, body) for k, body in zip(self.intrinsics, bodies_from_world, strict=True)]

    def frame(
        self,
        index: int,
        projections: Sequence[Float64],
        eyes_m: Sequence[Float64],
        mounts: Sequence[Float64],
        boxes: Sequence[Box],
        ego: Float64,
        text: Sequence[str],
    ) -> ConditionFrame:
        """`mounts`: where the cameras sit on the car, from its middle; `ego`: the pose of its rear axle."""
        of_boxes, of_lines = self._settings.boxes, self._settings.lines
        drawn: dict[str, list[Picture]] = {"box": [], "map": []}
        for projection, eye in zip(projections, eyes_m, strict=True):
            segments, colors = box_segments(boxes, projection, eye, of_boxes)
            drawn["box"].append(draw_lines(self.size_px, segments, colors, of_boxes.pen_px))
            segments, colors = self._lines.segments(projection, of_lines)
            drawn["map"].append(draw_lines(self.size_px, segments, colors, of_lines.pen_px))
        cameras = Cameras(self.names, self.intrinsics, transforms(mounts, self._settings.rear_axle_m))
        images = {kind: np.stack(pictures) for kind, pictures in drawn.items()}
        return ConditionFrame(index, images, cameras, ego, tuple(text), self._settings.fps)
