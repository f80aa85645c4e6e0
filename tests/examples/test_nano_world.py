"""The procedural world: the same scene for the same seed, and pictures that show what the scene says."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "nano"))
import motion
import render
import scene


def test_a_seed_is_a_scene():
    assert scene.sample(7, 5) == scene.sample(7, 5)
    assert np.array_equal(render.render(scene.sample(7, 5), 5), render.render(scene.sample(7, 5), 5))
    assert len({scene.sample(seed, 5).caption for seed in range(40)}) > 30


def test_actions_are_held_for_two_latents():
    for seed in range(50):
        actions = scene.sample(seed, 12, steady=False).actions
        changes = [i for i in range(1, 12) if actions[i] != actions[i - 1]]
        assert all(b - a >= scene.LEAST_HOLD for a, b in zip([0, *changes], changes, strict=False))


def test_curvature_and_heading_follow_the_action():
    states = list(motion.drive(["D"] * 2 + ["DL"] * 6, 29))
    assert states[4].curvature_per_m == 0
    assert states[-1].curvature_per_m == pytest.approx(motion.CURVATURE_PER_M["DL"], rel=0.02)
    assert states[-1].heading_rad < 0 < states[-1].distance_m


def _middle_of_the_road(frame):
    """Mean column of the asphalt, a little below the horizon."""
    row = frame[42].astype(int)
    return np.flatnonzero(np.abs(row - (77, 77, 82)).max(-1) < 14).mean()


def test_the_road_bends_to_the_side_of_the_action():
    plain = replace(scene.sample(3, 1), place="desert", weather="clear", time="day")
    middles = {a: _middle_of_the_road(render.render(replace(plain, actions=(a,)), 1)[0]) for a in ("DL", "D", "DR")}
    assert middles["DL"] + 5 < middles["D"] < middles["DR"] - 5


@pytest.mark.parametrize(("time", "brighter"), [("night", "dusk"), ("dusk", "day")])
def test_times_of_day_differ_in_light(time, brighter):
    plain = replace(scene.sample(11, 1), place="forest", weather="clear", actions=("D",))
    dark, light = (render.render(replace(plain, time=t), 1).mean() for t in (time, brighter))
    assert dark < light


def test_the_car_ahead_has_the_colour_of_the_caption():
    plain = replace(scene.sample(5, 1), place="desert", weather="clear", time="day", actions=("D",))
    for name, colour in scene.COLOURS.items():
        frame = render.render(replace(plain, colour=name), 1)[0] / 255
        assert (np.abs(frame - colour).max(-1) < 0.12).mean() > 0.005, name
        assert name in replace(plain, colour=name).caption
