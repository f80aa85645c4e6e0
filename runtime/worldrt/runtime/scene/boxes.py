"""Boxes of road users: their corners, edges and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from worldrt.runtime.scene.poses import Float64
from worldrt.runtime.scene.projection import project

Color = tuple[int, int, int]

COLORS: Mapping[str, Color] = MappingProxyType(
    {
        "pedestrian": (255, 0, 0),
        "bicycle": (128, 255, 0),
        "motorcycle": (0, 255, 128),
        "bus": (128, 0, 255),
        "van": (0, 0, 255),
        "car": (0, 0, 255),
        "truck": (255, 255, 0),
    }
)
CORNERS = np.array([(x, y, z, 1.0) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
"""(8, 4) of a box whose half sides are 1; the last number counts fastest for z."""
# the twelve edges, and two diagonals that tell the front (x = 1) and the left side (y = 1)
EDGES = np.array(
    ((0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (1, 5), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7), (6, 7), (6, 3), (6, 5))
)


@dataclass(frozen=True, eq=False)
class Box:
    """A road user. `pose` (4, 4) is from its own axes to the world; the box has half sides `half_m` (3) around
    `offset_m` (3) in these axes."""

    label: str
    pose: Float64
    half_m: Sequence[float]
    offset_m: Sequence[float] = (0.0, 0.0, 0.0)

    @property
    def corners(self) -> Float64:
        """(8, 3) in the world, in the order of `CORNERS`."""
        own = CORNERS.copy()
        own[:, :3] = own[:, :3] * np.asarray(self.half_m) + np.asarray(self.offset_m)
        corners: Float64 = (self.pose @ own.T).T[:, :3]
        return corners


@dataclass(frozen=True)
class BoxStyle:
    """How boxes are drawn. `reach_m`: how far the origin of a road user may be from the camera. Labels without a colour
    are not drawn."""

    reach_m: float = 80.0
    pen_px: int = 3
    colors: Mapping[str, Color] = field(default_factory=lambda: COLORS)


def box_segments(
    boxes: Sequence[Box], image_from_world: Float64, camera_m: Float64, style: BoxStyle
) -> tuple[Float64, list[Color]]:
    """The lines (m, 4) in pixels that show boxes to a camera at `camera_m` (3), and the colour of each."""
    shown = [
        box
        for box in boxes
        if box.label in style.colors and np.linalg.norm(box.pose[:3, 3] - camera_m) <= style.reach_m
    ]
    if not shown:
        return np.empty((0, 4)), []
    corners = np.stack([box.corners for box in shown])
    seen = corners @ image_from_world[:3, :3].T + image_from_world[:3, 3]
    lines, which = project(seen[:, EDGES[:, 0]].reshape(-1, 3), seen[:, EDGES[:, 1]].reshape(-1, 3))
    return lines, [style.colors[shown[index].label] for index in which // len(EDGES)]
