"""The source `drive`: what it shows is where it is, the same for the same seed, and steered."""

from __future__ import annotations

import json

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.conditions import open_source
from worldrt.runtime.conditions.base import AUTO, CONTROLS
from worldrt.runtime.scene.cameras import FRONT_THREE

from ...fakes import roads

CAMERAS = [{"name": "FRONT", "size": [160, 90], "fov": 90, "location": [0, 0, 1.5]}]
QUIET = {"cameras": CAMERAS, "vehicles": 0, "walkers": 0, "map_reader": "own"}


@pytest.fixture
def crossing(tmp_path):
    path = tmp_path / "crossing.xodr"
    path.write_text(roads.crossing())
    return str(path)


def same(one, other):
    return all(np.array_equal(one.images[kind], other.images[kind]) for kind in one.images) and one.text == other.text


def test_it_needs_no_download_and_shows_three_views():
    source = open_source("drive", {"map_reader": "own", "vehicles": 4}, fps=5)
    frame = source.next(None)
    assert source.views == frame.cameras.names == tuple(camera.name for camera in FRONT_THREE)
    assert source.fps == frame.fps == 5 and source.size_px == frame.image_size == (640, 360)
    assert {kind: image.shape for kind, image in frame.images.items()} == dict.fromkeys(
        ("box", "map"), (3, 360, 640, 3)
    )
    assert frame.images["map"].any() and frame.views == 3
    assert source.controls == CONTROLS and AUTO in CONTROLS
    source.close()


def test_what_is_shown_is_where_the_car_is(crossing):
    """The kerb on the right of the street, by hand: 3.5 m from the middle of the road, seen at the right height."""
    source = open_source("drive", QUIET | {"map": crossing}, seed=1)
    frame = source.next("N")
    x, y = frame.ego[:2, 3]
    heading = np.arctan2(frame.ego[1, 0], frame.ego[0, 0])
    # the middle of its street: all of them lead to or from (52, 52)
    across = (y - 52) * np.cos(heading) if abs(np.cos(heading)) > 0.5 else (52 - x) * np.sin(heading)
    assert across == pytest.approx(-1.75, abs=1e-3)  # in the middle of the lane on the right
    assert np.linalg.norm(frame.cameras.transforms[0][:3, 3] - (1.5, 0, 1.5)) < 1e-9
    # 1.75 m to the right and 1.5 m below the camera, a kerb 4 m ahead lies at 80 + 80 * 1.75 / 4, 45 + 80 * 1.5 / 4
    column, row = round(80 + 80 * 1.75 / 4), round(45 + 80 * 1.5 / 4)
    assert (frame.images["map"][0, row - 1 : row + 2, column - 1 : column + 2] == (0, 0, 255)).all(-1).any()


def test_a_seed_and_controls_decide_every_frame_and_a_state_goes_on(crossing):
    config = {"cameras": CAMERAS, "vehicles": 5, "walkers": 2, "map": crossing, "map_reader": "own"}
    controls = ["D", "D", "DL", AUTO, None, "B", "N"]
    one, other = (open_source("drive", config, seed=3) for _ in range(2))
    frames = [one.next(control) for control in controls]
    assert all(same(frame, other.next(control)) for frame, control in zip(frames, controls, strict=True))
    state = one.state()
    later = [one.next("D") for _ in range(3)]
    one.restore(state)
    assert all(same(frame, one.next("D")) for frame in later)
    one.restore(state)
    assert one.next("D").index == len(controls)
    assert one.facts() == other.facts() == json.loads(json.dumps(one.facts()))
    assert open_source("drive", config | {"vehicles": 4}, seed=3).facts() != one.facts()
    assert not same(open_source("drive", config, seed=4).next("D"), frames[0])


def test_the_car_goes_where_it_is_steered(crossing):
    source = open_source("drive", QUIET | {"map": crossing}, seed=1)
    start = source.next("N").ego
    for _ in range(20):
        frame = source.next("DL")
    left = start[:2, 1]  # of where it looked at first
    assert (frame.ego[:2, 3] - start[:2, 3]) @ left > 0.5
    assert (frame.ego[:2, 3] - start[:2, 3]) @ start[:2, 0] > 2.0
    with pytest.raises(InputError, match="expected one of D, DL, .* got 'X'"):
        source.next("X")


def test_weather_and_time_are_said(crossing):
    weather = {"sun_altitude_angle": -10, "precipitation": 60}
    config = QUIET | {"map": crossing, "weather": weather, "environment_description": "A village."}
    (text,) = open_source("drive", config, seed=1).next("N").text
    assert text == "night. rainy. A village. roads."


def test_frames_of_fewer_a_second_are_farther_apart(crossing):
    def way(fps):
        source = open_source("drive", QUIET | {"map": crossing}, fps=fps, seed=1)
        places = [source.next("D").ego[:2, 3] for _ in range(int(2 * fps))]
        return np.linalg.norm(places[-1] - places[0]), np.linalg.norm(places[-1] - places[-2])

    (whole, last), (whole_slow, last_slow) = way(20), way(4)
    assert last_slow == pytest.approx(5 * last, rel=0.15)
    assert whole > whole_slow  # the first frame of 4 a second is later


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"colour": "red"}, "no 'colour' here; there are: actors, boxes, cameras"),
        ({"fps": 0}, "fps: expected a number from 0.1 to 100, got '0'"),
        ({"fps": True}, "fps: expected a number"),
        ({"vehicles": 2.5}, "vehicles: expected a whole number from 0 to 500"),
        ({"map": "nowhere.xodr"}, "nowhere.xodr: cannot be read: No such file"),
        ({"map_reader": "best"}, "map_reader: expected one of auto, own, carla"),
        ({"cameras": []}, "cameras: expected cameras of different names"),
        ({"cameras": CAMERAS * 2}, "cameras of different names"),
        ({"cameras": [CAMERAS[0], CAMERAS[0] | {"name": "B", "size": [80, 90]}]}, "cameras of one size"),
        ({"cameras": [{"name": "A", "size": [80]}]}, r"cameras\[0\]: expected a camera with name, size and fov"),
        ({"cameras": [CAMERAS[0] | {"fov": 180}]}, r"cameras\[0\].fov: expected a number from 1 to 170"),
        ({"cameras": [CAMERAS[0] | {"size": [160, 1e9]}]}, "from 16 to 4096"),
        ({"cameras": [CAMERAS[0] | {"zoom": 2}]}, r"cameras\[0\]: no 'zoom' here"),
        ({"weather": {"fog": 3}}, "weather: no 'fog' here; there are: sun_altitude_angle"),
        ({"weather": [1]}, "weather: expected an object"),
        ({"boxes": {"color_table": {"car": [1, 2]}}}, r"color_table.car: expected \[red, green, blue\]"),
        ({"boxes": {"edge_indices": [[0, 1]]}}, "edge_indices: expected nothing"),
        ({"environment_description": "x" * 501}, "a text of at most 500 characters"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used_are_named(config, why):
    with pytest.raises(InputError, match=why):
        open_source("drive", config)


def test_an_unknown_source_and_rate_are_named():
    with pytest.raises(InputError, match="conditions: no 'boat' here; there are: carla, drive"):
        open_source("boat")
    with pytest.raises(InputError, match="fps: expected above 0 and at most 100, got 1000"):
        open_source("drive", fps=1000)
