"""The recorded scene that the official code drew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from worldrt.runtime.scene.boxes import Box
from worldrt.runtime.scene.cameras import image_from_world, intrinsics
from worldrt.runtime.scene.lines import MapLines
from worldrt.runtime.scene.poses import flipped

GOLDEN = Path(__file__).parents[2] / "golden" / "opendwm"


class Scene:
    """Boxes, lines and cameras of the golden scene, right-handed."""

    def __init__(self) -> None:
        self.folder = GOLDEN
        self.facts = json.loads((GOLDEN / "draw_scene.json").read_text())
        with safe_open(GOLDEN / "draw.safetensors", "np") as file:
            self.arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.cameras = self.facts["channels"]
        self.boxes = [self._box(actor) for actor in self.facts["actors"]]
        self.lines = MapLines(self.polylines())

    def polylines(self):
        return {
            kind: [self.arrays[name] for name in lines.values()] for kind, lines in self.facts["map_polylines"].items()
        }

    def _box(self, actor):
        array = {name: self.arrays[f"actor.{actor['index']}.{name}"] for name in ("world_matrix", "extent", "offset")}
        label = "pedestrian" if actor["base_type"] is None else actor["base_type"].lower()
        return Box(label, flipped(array["world_matrix"]), array["extent"], array["offset"] * (1, -1, 1))

    def projection(self, camera):
        """(4, 4) from the world to the image, and where the camera is."""
        matrix = intrinsics(640, 360, float(self.facts["fov"][camera]))
        inverse = flipped(self.arrays[f"camera.{camera}.world_inverse"])
        return image_from_world(matrix, inverse), flipped(self.arrays[f"camera.{camera}.world_matrix"])[:3, 3]


@pytest.fixture(scope="session")
def scene() -> Scene:
    return Scene()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "camera_name" in metafunc.fixturenames:
        metafunc.parametrize("camera_name", ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"])


def same_lines(found, expected) -> None:
    """Within 1e-6 pixels, and 1e-9 of what is farther out than 1e4 pixels."""
    assert found.shape == expected.shape
    far = np.abs(expected) >= 1e4
    np.testing.assert_allclose(found[~far], expected[~far], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[far], expected[far], rtol=1e-9)


@pytest.fixture(scope="session")
def lines_are_the_same():
    return same_lines
