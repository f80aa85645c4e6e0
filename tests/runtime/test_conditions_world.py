"""A world without a model: what it is conditioned on, steered, recorded and shown as any other world."""

from __future__ import annotations

import io
import json

import av
import numpy as np
import pytest

from worldrt.runtime.cli import main
from worldrt.runtime.conditions import open_source
from worldrt.runtime.conditions_world import ConditionsWorld
from worldrt.runtime.live.controls import AUTO
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Wheel, Written
from worldrt.runtime.scene.views import mosaic

CAMERAS = [{"name": name, "size": [96, 54], "fov": 90, "location": [0.5, 0, 1.5], "rotation": [0, yaw, 0]}
           for name, yaw in (("LEFT", -50), ("FRONT", 0))]  # fmt: skip
CONFIG = {"cameras": CAMERAS, "vehicles": 3, "walkers": 1, "map_reader": "own"}


def source(seed):
    return open_source("drive", CONFIG, seed=seed)


def session(controls, seed=4, **options):
    steering = Written(controls, endless=True)
    made = WorldSession(ConditionsWorld(source, seed), seed=seed, pace=PaceOptions(None), steering=steering, **options)
    made.start("")
    return made


def take(made, count):
    found = []
    while len(found) < count:
        found += [frame.picture.copy() for frame in made.step()]
    return found


def test_its_pictures_are_the_conditions_of_its_source():
    controls = ["D", "DL", AUTO, "D", "N", "DR"]
    alone = source(4)
    expected = []
    for control in controls:
        images = alone.next(control).images
        expected.append(mosaic(np.maximum(images["box"], images["map"])))
    made = session(controls)
    assert (made.video.width, made.video.height, made.video.fps) == (192, 54, 10)
    assert np.array_equal(take(made, 6), expected)
    made.stop()


def test_it_goes_on_from_a_snapshot_and_branches():
    made = session(["D"] * 4 + ["DL"] * 20)
    take(made, 3)
    state = made.snapshot()
    later = take(made, 5)
    made.restore(state)
    assert np.array_equal(take(made, 5), later)
    made.restore(state)
    other = made.branch(steering=Written(["B"], endless=True))
    assert not np.array_equal(take(other, 5), later)
    assert np.array_equal(take(made, 5), later)
    made.reset()
    assert np.array_equal(take(made, 8)[3:], later)
    for world in (made, other):
        world.stop()


def test_a_wheel_that_nobody_holds_leaves_it_to_the_car():
    wheel = Wheel(ConditionsWorld(source).controls, "auto")
    assert wheel.of(0).control == AUTO
    wheel.press("DL", 1.0)
    assert wheel.of(1).control == "DL"
    wheel.press(None, 2.0)
    assert wheel.of(2).control == AUTO


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder with a small configuration; exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    (tmp_path / "small.json").write_text(json.dumps(CONFIG))

    def call(*flags):
        return main(["world", *flags]), *capsys.readouterr()

    return call


SHOWN = ("--source", "drive", "--conditions_only", "-c", "small.json", "--quiet")


def films(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_command_writes_what_a_model_would_see(run, tmp_path):
    code, out, err = run(*SHOWN, "--length", "2", "--fps", "5", "--mosaic", "column", "--save_path", "d.mp4", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["frames"], result["width"], result["height"]) == (10, 96, 108)
    pictures = films(tmp_path / "d.mp4")
    assert len(pictures) == 10 and all(picture.max() > 100 for picture in pictures)
    assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 0.5  # it moves


def test_a_recording_gives_the_same_file(run, tmp_path):
    flags = (*SHOWN, "--seed", "9", "--length", "1", "--control_signal", "D,D,DL,DL,D")
    code, _, err = run(*flags, "--save_path", "a.mp4", "--record", "a.jsonl")
    assert code == 0, err
    code, _, err = run(*SHOWN, "--seed", "9", "--replay", "a.jsonl", "--save_path", "b.mp4")
    assert code == 0, err
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "small.json").write_text(json.dumps(CONFIG | {"vehicles": 2}))
    code, _, err = run(*SHOWN, "--replay", "a.jsonl", "--save_path", "c.mp4")
    assert code == 2 and "source differ" in err


def test_what_a_configuration_says_besides_is_named(run, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"actor_configs": [], "total_steps": 5}))
    code, _, err = run(*SHOWN[:-1], "-c", str(other), "--length", "1", "--save_path", "null:")
    assert code == 0, err
    assert "not used of the configuration: total_steps" in err


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--source", "boat"), "--source: no 'boat' here; there are: carla, drive"),
        (("--conditions_only",), "--conditions_only: it is about a source"),
        (("--overlay",), "--overlay: it is about a source of conditions; say --source drive"),
        (("-c", "small.json"), "--config: it is about a source"),
        ((*SHOWN, "--overlay"), "--overlay: with --conditions_only there is nothing"),
        ((*SHOWN, "-c", "none.json"), "none.json: cannot be read"),
        ((*SHOWN, "--fps", "1000"), "fps"),
    ],
)
def test_mistakes_are_one_line(run, flags, why):
    code, _, err = run(*flags, "--length", "1", "--save_path", "x.mp4")
    assert code == 2 and why in err and len(err.splitlines()) == 1


def test_a_simulator_that_does_not_run_is_one_line(run, tmp_path):
    pytest.importorskip("carla")
    (tmp_path / "there.json").write_text(json.dumps({"port": 47922, "timeout_s": 0.2}))
    code, _, err = run("--source", "carla", "--conditions_only", "-c", "there.json", "--length", "1", "--to", "null:")
    assert code == 2 and "no simulator answers at 127.0.0.1:47922" in err and len(err.splitlines()) == 1
