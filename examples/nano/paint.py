"""A flat ground seen in perspective, and things that stand on it: the few shapes that the world is drawn with.

Pictures are float arrays (rows, columns, 3) in [0, 1], drawn at twice the size and averaged, so that edges are soft.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Colour = tuple[float, float, float]
SUPERSAMPLE = 2
CAMERA_HEIGHT_M = 1.5
HORIZON = 0.44
"""Row of the horizon, as a share of the height."""
FOCAL = 0.85
"""Focal length, as a share of the width."""


@dataclass
class Canvas:
    """A picture in the making. `depth_m` and `x_m` are the distance and the sideways place of the ground at each pixel
    below the horizon."""

    width: int
    height: int
    curvature_per_m: float
    fog_m: float
    fog: Colour
    pixels: Array = field(init=False)

    def __post_init__(self) -> None:
        self.columns, self.rows = self.width * SUPERSAMPLE, self.height * SUPERSAMPLE
        self.pixels = np.zeros((self.rows, self.columns, 3), np.float32)
        self.focal_px = FOCAL * self.columns
        self.horizon = int(HORIZON * self.rows)
        below = np.arange(self.horizon + 1, self.rows, dtype=np.float32)[:, None]
        across = np.arange(self.columns, dtype=np.float32)[None] + 0.5 - self.columns / 2
        self.depth_m = CAMERA_HEIGHT_M * self.focal_px / (below - self.horizon + 0.25)
        self.x_m = across * self.depth_m / self.focal_px - self.centre_m(self.depth_m)

    def centre_m(self, depth_m: Any) -> Any:
        """Where the middle of the road is at a distance."""
        return self.curvature_per_m * depth_m**2 / 2

    @property
    def ground(self) -> Array:
        """The pixels below the horizon."""
        return self.pixels[self.horizon + 1 :]

    def hazy(self, colour: Any, depth_m: Any) -> Any:
        """A colour seen through the air over a distance."""
        clear = np.exp(-np.asarray(depth_m) / self.fog_m)[..., None]
        return np.asarray(colour) * clear + np.asarray(self.fog) * (1 - clear)

    def place(self, x_m: float, depth_m: float) -> tuple[float, float, float]:
        """Column and row of a point on the ground, and pixels per metre there."""
        scale = self.focal_px / depth_m
        return (
            self.columns / 2 + scale * (x_m + self.centre_m(depth_m)),
            self.horizon + CAMERA_HEIGHT_M * scale,
            scale,
        )

    def box(self, left: float, top: float, right: float, bottom: float, colour: Any, opacity: float = 1.0) -> None:
        """Fill a rectangle given in pixels; what lies outside is cut."""
        part = self._cut(left, top, right, bottom)
        part[...] = part * (1 - opacity) + np.asarray(colour, np.float32) * opacity

    def ellipse(self, column: float, row: float, rx: float, ry: float, colour: Any) -> None:
        """Fill an ellipse given in pixels."""
        part = self._cut(column - rx, row - ry, column + rx, row + ry)
        if not part.size:
            return
        top, left = max(0, round(row - ry)), max(0, round(column - rx))
        y = (np.arange(top, top + part.shape[0])[:, None] + 0.5 - row) / max(ry, 0.5)
        x = (np.arange(left, left + part.shape[1])[None] + 0.5 - column) / max(rx, 0.5)
        part[x**2 + y**2 <= 1] = colour

    def _cut(self, left: float, top: float, right: float, bottom: float) -> Array:
        rows = slice(max(0, round(top)), max(0, round(bottom)))
        columns = slice(max(0, round(left)), max(0, round(right)))
        return self.pixels[rows, columns]

    def finished(self) -> Array:
        """uint8 (height, width, 3)."""
        k = SUPERSAMPLE
        small = self.pixels.reshape(self.height, k, self.width, k, 3).mean((1, 3))
        pixels: Array = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
        return pixels
