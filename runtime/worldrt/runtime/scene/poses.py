"""Poses as float64 matrices (4, 4), and the change between CARLA's left-handed axes and right-handed ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Float64 = np.ndarray[Any, np.dtype[np.float64]]


def flipped(matrix: Float64) -> Float64:
    """A transform of CARLA (x ahead, y right, z up) as one of right-handed axes (y left), and the other way round."""
    sign = np.array((1.0, -1.0, 1.0, 1.0))
    turned: Float64 = matrix * sign[:, None] * sign
    return turned


def carla_matrix(location_m: Sequence[float], rotation_deg: Sequence[float]) -> Float64:
    """CARLA's transform of (x, y, z) and (pitch, yaw, roll), in its own axes: Unreal's order of rotations."""
    pitch, yaw, roll = np.deg2rad(np.asarray(rotation_deg, np.float64))
    (cp, cy, cr), (sp, sy, sr) = np.cos((pitch, yaw, roll)), np.sin((pitch, yaw, roll))
    x, y, z = location_m
    return np.array(
        (
            (cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr, x),
            (cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr, y),
            (sp, -cp * sr, cp * cr, z),
            (0.0, 0.0, 0.0, 1.0),
        )
    )


def upright(x_m: float, y_m: float, z_m: float, heading_rad: float, pitch_rad: float = 0.0) -> Float64:
    """The pose of something that stands on the ground and looks along a heading, from its axes to the world;
    `pitch_rad` is that of a slope that it climbs."""
    (c, cp), (s, sp) = np.cos((heading_rad, pitch_rad)), np.sin((heading_rad, pitch_rad))
    return np.array(
        (
            (c * cp, -s, -c * sp, x_m),
            (s * cp, c, -s * sp, y_m),
            (sp, 0.0, cp, z_m),
            (0.0, 0.0, 0.0, 1.0),
        )
    )
