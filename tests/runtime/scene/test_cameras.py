"""Cameras: CARLA's transforms, the official batch of camera matrices, and the axes that they stand in."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open

from worldrt.runtime.scene.cameras import FRONT_THREE, Camera, axle_from_middle, intrinsics, transforms
from worldrt.runtime.scene.poses import carla_matrix, flipped, upright


@pytest.fixture(scope="module")
def golden(scene):
    with safe_open(scene.folder / "camera.safetensors", "np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_camera_matrices_are_the_official_ones(golden, scene):
    ego = golden["in.ego_world_matrix"]
    mounts = [flipped(np.linalg.solve(ego, golden[f"in.{name}.sensor_world_matrix"])) for name in scene.cameras]
    np.testing.assert_allclose(transforms(mounts), golden["batch.camera_transforms"][0, 0], atol=1e-6)
    fov = golden["in.fov"]
    matrices = np.stack([intrinsics(640, 360, degrees) for degrees in fov])
    np.testing.assert_allclose(matrices, golden["batch.camera_intrinsics"][0, 0], rtol=1e-6)
    axle = flipped(ego) @ np.linalg.inv(axle_from_middle())
    np.testing.assert_allclose(axle, golden["batch.ego_transforms"][0, 0, 0], rtol=1e-6, atol=1e-5)


def test_rotations_are_those_of_the_simulator():
    carla = pytest.importorskip("carla")
    for rotation in ((10.0, 20.0, 30.0), (-80.0, 170.0, 5.0), (0.0, -55.0, 0.0)):
        transform = carla.Transform(carla.Location(1, 2, 3), carla.Rotation(*rotation))
        np.testing.assert_allclose(carla_matrix((1, 2, 3), rotation), transform.get_matrix(), atol=2e-7)


def test_a_camera_looks_where_it_is_turned():
    """A yaw of 90 degrees turns to the right, which is -y; the image's right is then behind, its down is down."""
    turned = transforms([Camera("right", 640, 360, 90.0, (1.0, 0.5, 1.2), (0.0, 90.0, 0.0)).mount])[0]
    np.testing.assert_allclose(turned[:3, 2], (0, -1, 0), atol=1e-12)
    np.testing.assert_allclose(turned[:3, 0], (-1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(turned[:3, 1], (0, 0, -1), atol=1e-12)
    np.testing.assert_allclose(turned[:3, 3], (2.5, -0.5, 1.2), atol=1e-12)  # 1.5 m before the rear axle


def test_the_cameras_at_the_front_overlap_and_look_apart():
    headings = [np.degrees(np.arctan2(*transforms([camera.mount])[0][[1, 0], 2])) for camera in FRONT_THREE]
    np.testing.assert_allclose(headings, (55.2, 0.6, -57.6), atol=0.1)


def test_a_pose_on_a_slope_climbs():
    pose = upright(1.0, 2.0, 3.0, np.pi / 2, 0.1)
    np.testing.assert_allclose(pose[:3, 0], (0, np.cos(0.1), np.sin(0.1)), atol=1e-12)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(pose), 1.0)
