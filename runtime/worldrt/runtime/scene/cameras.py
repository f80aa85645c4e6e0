"""Cameras on a vehicle, given as CARLA gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldrt.runtime.scene.poses import Float64, carla_matrix, flipped

REAR_AXLE_M = 1.5
"""How far the middle of the rear axle lies behind the origin that CARLA gives a car."""
OPTICAL = np.array(((0.0, -1, 0, 0), (0, 0, -1, 0), (1, 0, 0, 0), (0, 0, 0, 1)))
"""From the axes of a vehicle (x ahead, y left, z up) to those of a camera (x right, y down, z ahead)."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels. `location_m` (x ahead, y right, z up) is seen from the middle of the car,
    `rotation_deg` is (pitch, yaw, roll), and `fov_deg` is the angle of the width, as in CARLA."""

    name: str
    width_px: int
    height_px: int
    fov_deg: float
    location_m: tuple[float, float, float] = (0.0, 0.0, 1.5)
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def intrinsics(self) -> Float64:
        """(3, 3), in pixels."""
        return intrinsics(self.width_px, self.height_px, self.fov_deg)

    @property
    def mount(self) -> Float64:
        """(4, 4) from the camera's body (x ahead, y left, z up) to the car's, whose origin is its middle."""
        return flipped(carla_matrix(self.location_m, self.rotation_deg))


# those of nuScenes at the front, at 640x360
FRONT_THREE = (
    Camera("CAM_FRONT_LEFT", 640, 360, 64.294, (0.02387798, -0.4946313, 1.509328), (-0.01956288, -55.16078, 0.1844642)),
    Camera("CAM_FRONT", 640, 360, 65.105, (0.2220057, 0.004754533, 1.494913), (0.4832067, -0.5878978, 0.7057124)),
    Camera("CAM_FRONT_RIGHT", 640, 360, 64.951, (0.08082566, 0.4990787, 1.517494), (0.9428741, 57.575, 0.2075008)),
)


def intrinsics(width_px: float, height_px: float, fov_deg: float) -> Float64:
    """(3, 3) of a pinhole camera whose width spans `fov_deg`."""
    focal = width_px / (2.0 * np.tan(0.5 * np.deg2rad(fov_deg)))
    return np.array(((focal, 0.0, 0.5 * width_px), (0.0, focal, 0.5 * height_px), (0.0, 0.0, 1.0)))


def axle_from_middle(rear_axle_m: float = REAR_AXLE_M) -> Float64:
    """(4, 4) from axes at the middle of the car to those at its rear axle."""
    moved = np.eye(4)
    moved[0, 3] = rear_axle_m
    return moved


def transforms(mounts: Sequence[Float64], rear_axle_m: float = REAR_AXLE_M) -> Float64:
    """(V, 4, 4) from optical axes to the rear axle, of cameras whose bodies are mounted so on the middle of the car."""
    return np.stack([axle_from_middle(rear_axle_m) @ mount @ OPTICAL.T for mount in mounts])


def image_from_world(matrix: Float64, body_from_world: Float64) -> Float64:
    """(4, 4) from right-handed world axes to (x z, y z, z, 1) in pixels and metres of depth, of a camera's intrinsics
    and the inverse of its body's pose."""
    wide = np.eye(4)
    wide[:3, :3] = matrix
    return np.asarray(wide @ OPTICAL @ body_from_world, np.float64)
