"""Line segments in space as a pinhole camera sees them, cut where they pass behind it or too far away."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.runtime.scene.poses import Float64

NEAR_M = 0.05
FAR_M = 512.0


def project(
    begin: Float64, end: Float64, near_m: float = NEAR_M, far_m: float = FAR_M
) -> tuple[Float64, np.ndarray[Any, np.dtype[np.intp]]]:
    """Segments (n, 3) in (x z, y z, z), as `image_from_world` gives them, in pixels: (m, 4) with x0, y0, x1, y1, and
    which of the n they are. What lies wholly nearer than `near_m` or farther than `far_m` is left out."""
    z0, z1 = begin[:, 2], end[:, 2]
    kept = np.flatnonzero(~(((z0 < near_m) & (z1 < near_m)) | ((z0 > far_m) & (z1 > far_m))))
    begin, end = begin[kept], end[kept]
    first = _cut(_cut(begin, end, near_m, -1.0), end, far_m, 1.0, begin)
    last = _cut(_cut(end, begin, near_m, -1.0), begin, far_m, 1.0, end)
    return np.concatenate((first[:, :2] / first[:, 2:], last[:, :2] / last[:, 2:]), axis=1), kept


def _cut(point: Float64, other: Float64, depth_m: float, sign: float, origin: Float64 | None = None) -> Float64:
    """`point`, moved towards `other` to a depth that it lies beyond (`sign` 1) or before (-1). The line is that from
    `origin`, where `point` was moved before."""
    origin = point if origin is None else origin
    z0, z1 = origin[:, 2], other[:, 2]
    beyond = (z0 - depth_m) * sign > 0
    share = np.divide(z1 - depth_m, z1 - z0, out=np.zeros_like(z0), where=beyond)[:, None]
    return np.where(beyond[:, None], origin * share + other * (1 - share), point)
