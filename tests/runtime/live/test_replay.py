"""Recordings give the same frames again, and files that are no recordings one clear error."""

from __future__ import annotations

import json

import numpy as np
import pytest

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.live.clock import RealClock, SimulatedClock
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.recording import Recording
from worldrt.runtime.live.replay import check_model, read, replaying
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Wheel

from .worlds import ToyModel


def simulated():
    return SimulatedClock({"denoise": 0.05, "decode": 0.03, "text": 0.1}.__getitem__)


def played(session, count):
    frames = []
    while len(frames) < count:
        frames += session.step()
    return [frame.picture for frame in frames]


def record(path, clock, idle="random"):
    """A session with keys, other prompts and a reset; the pictures of both of its worlds."""
    model = ToyModel()
    recording = Recording(path, model.facts())
    wheel = Wheel(model.controls, idle, seed=4)
    session = WorldSession(model, seed=9, clock=clock, steering=wheel, log=recording, pace=PaceOptions(200.0))
    session.start("a road")
    pictures = played(session, 30)
    for name in ("DL", "B", None, "DR"):
        session.control(name)
        pictures += played(session, 17)
    session.prompt("rain")
    pictures += played(session, 40)
    session.reset()
    session.control("D")
    second = played(session, 25)
    session.stop()
    recording.close()
    return pictures, second


@pytest.mark.parametrize("clock", (simulated, RealClock))
def test_a_replay_gives_the_same_frames_in_another_process_of_time(tmp_path, clock):
    first, second = record(tmp_path / "w.jsonl", clock())
    facts, scripts = read(tmp_path / "w.jsonl")
    model = ToyModel()
    check_model(facts, model)
    assert [script.frames for script in scripts] == [len(first), len(second)]
    assert [script.prompt for script in scripts] == ["a road", "rain"]
    for script, expected in zip(scripts, (first, second), strict=True):
        session = replaying(model, script, clock=simulated(), pace=PaceOptions(None))
        session.start(script.prompt)
        got = played(session, script.frames)[: script.frames]
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_world_that_goes_on_from_a_snapshot_is_recorded_with_what_led_to_it(tmp_path):
    model = ToyModel()
    recording, aside = Recording(tmp_path / "w.jsonl", model.facts()), Recording(None, model.facts())
    session = WorldSession(model, clock=simulated(), steering=Wheel(model.controls), log=recording)
    session.start("a road")
    session.control("DL")
    common = played(session, 22)
    state = session.snapshot()
    session.control("B")
    session.prompt("rain")
    first = common + played(session, 41)
    so_far = session.recording()
    other = session.branch(clock=simulated(), log=aside)
    session.restore(state)
    session.control("DR")
    second = common + played(session, 30)
    branched = first + played(other, 20)
    (tmp_path / "branch.jsonl").write_bytes(other.recording())
    (tmp_path / "so_far.jsonl").write_bytes(so_far)
    session.stop()
    scripts = [*read(tmp_path / "w.jsonl")[1], *read(tmp_path / "branch.jsonl")[1], *read(tmp_path / "so_far.jsonl")[1]]
    for script, expected in zip(scripts, (first, second, branched, first), strict=True):
        assert script.frames == len(expected)
        again = replaying(model, script, clock=simulated(), pace=PaceOptions(None))
        again.start(script.prompt)
        assert all(np.array_equal(a, b) for a, b in zip(expected, played(again, script.frames), strict=False))


def test_a_state_that_was_not_recorded_ends_the_recording(tmp_path):
    recording = Recording(tmp_path / "w.jsonl", {})
    other = WorldSession(ToyModel(), clock=simulated())
    session = WorldSession(ToyModel(), clock=simulated(), log=recording)
    for each in (other, session):
        each.start("a road")
    session.restore(other.snapshot())
    played(session, 4)
    with pytest.raises(InputError, match="not recorded"):
        session.recording()
    (script,) = read(tmp_path / "w.jsonl")[1]
    assert script.frames == 0


def test_a_recording_has_a_most_and_the_world_goes_on():
    recording = Recording(None, {}, most_bytes=200)
    session = WorldSession(ToyModel(), clock=simulated(), log=recording, steering=Wheel(ToyModel.controls, "random"))
    session.start("a road")
    assert len(played(session, 80)) >= 80
    assert "the recording ended" in recording.problem
    with pytest.raises(InputError, match="the recording ended"):
        session.recording()
    session.stop()
    recording.close()


def test_a_recording_that_was_cut_short_is_good_up_to_there(tmp_path):
    record(tmp_path / "w.jsonl", simulated())
    lines = (tmp_path / "w.jsonl").read_bytes()
    end = lines.index(b'{"end"')
    (tmp_path / "cut.jsonl").write_bytes(lines[: end - 5])
    (script,) = read(tmp_path / "cut.jsonl")[1]
    assert script.frames is None and len(script.controls) > 3


def test_a_recording_of_another_model_is_refused(tmp_path):
    record(tmp_path / "w.jsonl", simulated())
    facts, _ = read(tmp_path / "w.jsonl")
    with pytest.raises(InputError, match="another model .steps differ"):
        check_model({**facts, "steps": 5}, ToyModel())


HEAD = json.dumps({"worldrt_world": 1, "model": {}}) + "\n"
BEGIN = '{"begin": {"prompt": "x", "seed": 0, "base": ["D"]}}\n'


@pytest.mark.parametrize(
    "text",
    (
        "",
        "hello\n",
        "[]\n",
        "[" * 50_000 + "\n",
        HEAD,
        HEAD.replace("1", "2"),
        HEAD + '{"frame": 0, "control": "D"}\n',
        HEAD + BEGIN.replace("0", '"0"'),
        HEAD + BEGIN + '{"frame": "0", "control": "D"}\n',
        HEAD + BEGIN + '{"end": 3}\n',
        HEAD + BEGIN + "{}\n",
        "\x00\xff\n",
    ),
)
def test_what_is_no_recording_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "w.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="recording"):
        read(path)


def test_a_recording_is_not_overwritten(tmp_path):
    (tmp_path / "w.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="give another place"):
        Recording(tmp_path / "w.jsonl", {})
    assert (tmp_path / "w.jsonl").read_text() == "mine"


def test_a_disk_that_is_full_ends_the_recording_and_not_the_world(tmp_path):
    recording = Recording(tmp_path / "w.jsonl", {})
    recording._file.close()
    recording._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    session = WorldSession(ToyModel(), clock=simulated(), log=recording)
    session.start("a road")
    assert len(played(session, 20)) >= 20
    assert "No space left" in recording.problem
    session.stop()
