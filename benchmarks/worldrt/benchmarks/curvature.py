"""The curvature of the road in pictures of the nano world, by where the white lines at its edges run.

The camera of that world is known (`examples/nano/paint.py`): at a curvature, a line lies in one column of each row. The
curvature taken is the one whose columns are brightest against what lies beside them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from worldrt.benchmarks.likeness import LUMA

Array = np.ndarray[Any, Any]
CAMERA_HEIGHT_M, HORIZON, FOCAL = 1.5, 0.44, 0.85
"""Height; row of the horizon as a share of the height; focal length as a share of the width."""
EDGE_M, BESIDE_M = 3.5, 0.9
"""From the middle of the road to a line, and from a line to what it is compared with."""
NEAR_M, FAR_M = 5.0, 28.0
CANDIDATES = np.linspace(-0.022, 0.022, 89)
"""1 / m, to the right positive. The world's own bends have 0.011."""


def curvature_per_m(frame: Array) -> float:
    """Of a uint8 picture (H, W, 3)."""
    light = frame.astype(np.float64) @ LUMA
    rows, columns = _lines(*light.shape)
    inside = (columns >= 0) & (columns <= light.shape[1] - 1.001)
    at = np.clip(columns, 0, light.shape[1] - 1.001)
    left = at.astype(int)
    share = at - left
    values = (1 - share) * light[rows, left] + share * light[rows, left + 1]
    contrast = np.minimum(values[..., 0] - values[..., 1], values[..., 0] - values[..., 2])
    spread = light[rows[0, :, 0, 0]].std(axis=1)[None, :, None] + 4.0
    seen = inside.all(axis=-1)
    score = (np.where(seen, contrast / spread, 0.0)).sum(axis=(1, 2)) / np.maximum(seen.sum(axis=(1, 2)), 1)
    return float(CANDIDATES[int(np.argmax(score))])


@lru_cache(maxsize=4)
def _lines(height: int, width: int) -> tuple[Array, Array]:
    """Rows and columns (candidates, rows, sides, 3) of the lines, and of what lies inside and outside of them."""
    focal = FOCAL * width
    row = np.arange(int(HORIZON * height) + 1, height)
    depth = CAMERA_HEIGHT_M * focal / (row + 0.5 - HORIZON * height)
    kept = (depth >= NEAR_M) & (depth <= FAR_M)
    row, depth = row[kept], depth[kept]
    x_m = np.array([[side * (EDGE_M + more) for more in (0, -BESIDE_M, BESIDE_M)] for side in (-1, 1)])
    middle = CANDIDATES[:, None] * depth**2 / 2
    metres = middle[:, :, None, None] + x_m
    columns = width / 2 - 0.5 + focal * metres / depth[:, None, None]
    return np.broadcast_to(row[None, :, None, None], columns.shape), columns
