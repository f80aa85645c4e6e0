"""The trained world that comes with the package obeys its keys, judged by the pictures that it was trained to make."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldrt.engine.packaged import packaged
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "nano"))
from render import render
from scene import sample

SCENE = replace(sample(3, 1), place="coast", weather="clear", time="day", colour="red", actions=())
ROAD = slice(36, 60)
"""Rows between the horizon and the car's own bonnet."""


@pytest.fixture(scope="module")
def world():
    return World(Models.open([packaged("nano-matrix")], options={"threads": 1}))


@pytest.mark.parametrize("side, other", (("DL", "DR"), ("DR", "DL")))
def test_the_road_bends_to_the_side_of_the_key(world, side, other):
    signal = ["D"] * 5 + [side] * 8
    made = np.stack(list(world.generate(SCENE.caption, 2, signal, seed=1)))
    assert made.shape == (32, 80, 128, 3)
    near, far = (_distance(made[-4:], action) for action in (side, other))
    assert near < 0.75 * far


def test_the_same_keys_make_the_same_road(world):
    first, again = (list(world.generate(SCENE.caption, 1, ["D"] * 9, seed=2)) for _ in range(2))
    assert np.array_equal(first, again)


def _distance(frames: np.ndarray, action: str) -> float:
    """How far the road is from one that the world draws, without its marks."""
    drawn = render(replace(SCENE, actions=(action,)), 4).astype(float)
    return float(np.square(frames[:, ROAD].mean(0) - drawn[:, ROAD].mean(0)).mean())
