"""Sessions of a toy model: frames are those of the offline computation, whatever the timing and the faults."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.level_table import flow_euler
from worldrt.runtime.live.clock import RealClock, SimulatedClock
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Replayed, Wheel, Written
from worldrt.runtime.samplers_vp import dpm_sde, phased_ddim
from worldrt.runtime.schedule import methods

from .worlds import ToyModel, offline

FAST = {"denoise": 0.05, "decode": 0.03, "text": 0.4}
METHODS = {
    "Swin-DPM, stage 4": (methods.swin_dpm(4, 4, 1), phased_ddim(4, 4)),
    "Swin-DPM, stage 3": (methods.swin_dpm(20, 4, 4), dpm_sde(20)),
    "OpenDWM": (methods.opendwm(24, 4), flow_euler(24, 3.0)),
    "FIFO with lookahead": (methods.fifo(4, 2), flow_euler(8)),
    "FIFO": (methods.fifo(4, 2, False), flow_euler(8)),
    "pyramid": (methods.pyramid(6, 2, 1), flow_euler(6)),
    "autoregressive": (methods.autoregressive(4, 2, 1), flow_euler(4)),
    "full clip": (methods.full_clip(4, 5), flow_euler(4)),
}


def simulated(durations=None):
    return SimulatedClock((durations or FAST).__getitem__)


def signal(count, seed=0):
    return random.Random(seed).choices(("D", "DL", "DR", "B", "N"), k=count)


def pictures(frames):
    return [frame.picture for frame in frames]


def take(session, count):
    """The next frames."""
    frames = []
    while len(frames) < count and not session.done:
        frames += session.step()
    return frames


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_session_gives_the_frames_of_the_offline_computation_of_every_method(method):
    model = ToyModel(*METHODS[method])
    controls = signal(30)
    written = Written(controls, -model.schedule.given)
    session = WorldSession(model, seed=3, clock=simulated(), steering=written, pace=PaceOptions(None))
    session.start("a road")
    frames = list(session.frames())
    expected = offline(model, controls, "a road", seed=3)
    assert expected and same(pictures(frames), expected)
    assert [frame.index for frame in frames] == list(range(len(frames)))


def test_threads_and_pacing_change_no_picture():
    model = ToyModel()
    controls = signal(20)
    session = WorldSession(model, clock=RealClock(), steering=Written(controls, -1), pace=PaceOptions(400.0))
    session.start("a road")
    got = pictures(session.frames())
    session.stop()
    assert same(got, offline(model, controls, "a road"))


def test_frames_come_when_they_are_due_and_evenly():
    clock = simulated()
    session = WorldSession(ToyModel(), clock=clock)
    session.start("a road")
    take(session, 20)
    times = []
    for _ in range(100):
        take(session, 1)
        times.append(clock.now())
    assert np.allclose(np.diff(times), 1 / 16, atol=1e-9)
    assert session.pacer.late == 0


def test_a_row_begins_as_late_as_its_time_allows_so_that_controls_are_new():
    clock = simulated()
    session = WorldSession(ToyModel(), clock=clock)
    session.start("a road")
    waits = []
    for frame in take(session, 60)[20:]:
        waits.append(frame.stamps.decoded - frame.stamps.bound)
    assert max(waits) < 4 * (4 / 16) + 0.2  # the rows in flight, and not a hand-over full of frames besides


def test_models_that_are_too_slow_slow_the_world_down_evenly():
    clock = simulated({"denoise": 0.5, "decode": 0.1, "text": 0.1})
    session = WorldSession(ToyModel(), clock=clock)
    session.start("a road")
    take(session, 40)
    times = []
    for _ in range(40):
        take(session, 1)
        times.append(clock.now())
    gaps = np.diff(times)
    assert np.isclose(gaps.mean(), 0.5 / 4, rtol=0.05)  # the denoiser alone is the limit: decoding runs beside it
    assert gaps.max() < 0.5


def test_frames_that_are_too_late_are_dropped_where_that_is_wanted_and_counted():
    clock = simulated({"denoise": 0.5, "decode": 0.1, "text": 0.1})
    session = WorldSession(ToyModel(), clock=clock, pace=PaceOptions(16.0, late="drop", adapt=False))
    session.start("a road")
    frames = take(session, 40)
    gone = frames[-1].index + 1 - len(frames)
    assert gone > 0 and session.dropped == gone


def test_the_newest_control_wins():
    model = ToyModel()
    session = WorldSession(model, clock=simulated())
    session.start("a road")
    for name in ("D", "DL", "B", "DR"):
        session.control(name)
    bound = []
    session._log = type("Log", (), {"control": lambda self, frame, name: bound.append(name), "end": lambda *a: None})()
    take(session, 30)
    assert set(bound) == {"DR"}


def test_a_flood_of_controls_neither_waits_nor_grows():
    session = WorldSession(ToyModel(), clock=RealClock(), pace=PaceOptions(200.0))
    session.start("a road")
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            session.control("DL")
            session.control(None)

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    frames = take(session, 40)
    stop.set()
    for thread in threads:
        thread.join()
    session.stop()
    assert len(frames) == 40


@pytest.mark.parametrize("idle, expected", (("neutral", "N"), ("hold", "DL")))
def test_no_key_stands_still_or_goes_on(idle, expected):
    wheel = Wheel(ToyModel.controls, idle)
    wheel.press("DL", 1.0)
    assert wheel.of(0).control == "DL"
    wheel.press(None, 2.0)
    assert wheel.of(1).control == expected


def test_no_key_is_random_only_where_that_was_asked_for():
    wheel = Wheel(ToyModel.controls, "random", seed=1)
    drawn = [wheel.of(frame).control for frame in range(20)]
    assert {"D", "DL", "DR"} >= set(drawn) and len(set(drawn)) > 1
    state = wheel.state()
    first = [wheel.of(frame).control for frame in range(20)]
    wheel.restore(state)
    assert [wheel.of(frame).control for frame in range(20)] == first


def test_a_control_that_is_none_is_refused():
    session = WorldSession(ToyModel(), clock=simulated())
    with pytest.raises(InputError, match="expected one of D, DL"):
        session.control("LEFT")


def test_a_prompt_is_encoded_beside_the_world_and_swapped_in():
    model, clock = ToyModel(), simulated()
    session = WorldSession(model, clock=clock, steering=Written(["D"], endless=True))
    session.start("a road")
    take(session, 20)
    session.prompt("rain")
    times = []
    for _ in range(30):
        take(session, 1)
        times.append(clock.now())
    assert np.allclose(np.diff(times), 1 / 16)  # though encoding takes 0.4 s
    assert model.encoded == ["a road", "rain"]
    plain = WorldSession(ToyModel(), clock=simulated(), steering=Written(["D"], endless=True))
    plain.start("a road")
    take(plain, 50)
    assert not np.array_equal(take(session, 1)[0].picture, take(plain, 1)[0].picture)


def test_of_prompts_that_follow_fast_the_last_one_stays():
    model = ToyModel()
    session = WorldSession(model, clock=simulated())
    session.start("a road")
    for text in ("one", "two", "three"):
        session.prompt(text)
    take(session, 60)
    assert session.snapshot().prompt == "three"
    assert "two" not in model.encoded  # none is encoded that nobody waits for


def test_a_prompt_that_cannot_be_is_refused_and_the_world_goes_on():
    session = WorldSession(ToyModel(), clock=simulated())
    session.start("a road")
    with pytest.raises(InputError, match="too long"):
        session.prompt("x" * 101)
    assert take(session, 3)


def test_reset_begins_again_with_everything():
    session = WorldSession(ToyModel(), seed=5, clock=simulated(), steering=Wheel(ToyModel.controls, "random"))
    session.start("a road")
    first = pictures(take(session, 40))
    session.reset()
    again = take(session, 40)
    assert same(first, pictures(again))
    assert again[0].index == 0


def test_a_snapshot_restores_to_the_same_frames():
    session = WorldSession(ToyModel(), clock=simulated(), steering=Wheel(ToyModel.controls, "random"))
    session.start("a road")
    take(session, 23)
    state = session.snapshot()
    first = take(session, 40)
    session.restore(state)
    again = take(session, 40)
    assert same(pictures(first), pictures(again))
    assert [frame.index for frame in first] == [frame.index for frame in again]


def test_branches_differ_only_after_they_part():
    session = WorldSession(ToyModel(), clock=simulated())
    session.start("a road")
    session.control("D")
    take(session, 22)
    other = session.branch(clock=simulated())
    session.control("DL")
    other.control("DR")
    mine, theirs = pictures(take(session, 60)), pictures(take(other, 60))
    equal = [np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)]
    first = equal.index(False)
    assert all(equal[:first]) and sum(equal[first:]) < len(equal[first:]) / 2
    assert 0 < first <= 4 * 6  # what was in flight has its control already


@pytest.mark.parametrize("kind", ("neutral", "hold", "random", "written", "replayed"))
def test_a_branch_is_steered_as_its_world_was(kind):
    steerings = {
        "written": Written(signal(80), -1),
        "replayed": Replayed(dict(enumerate(signal(80), -1))),
    }
    steering = steerings.get(kind) or Wheel(ToyModel.controls, kind, seed=3)
    session = WorldSession(ToyModel(), clock=simulated(), steering=steering)
    session.start("a road")
    session.control("DL")
    take(session, 10)
    session.control(None)
    take(session, 10)
    other = session.branch(clock=simulated())
    assert same(pictures(take(session, 60)), pictures(take(other, 60)))


def test_a_branch_does_not_follow_the_prompt_of_the_other():
    session = WorldSession(ToyModel(), clock=simulated(), steering=Written(["D"], endless=True))
    session.start("a road")
    take(session, 20)
    other = session.branch(clock=simulated(), steering=Written(["D"], endless=True))
    session.prompt("rain")
    take(session, 60)
    assert other.snapshot().prompt == "a road"


def test_a_model_that_fails_stops_the_world_and_reset_brings_it_back():
    model = ToyModel()
    session = WorldSession(model, seed=2, clock=RealClock(), pace=PaceOptions(None))
    session.start("a road")
    take(session, 10)
    model.broken = RuntimeError("the device is gone")
    with pytest.raises(RuntimeError, match="device is gone"):
        take(session, 100)
    with pytest.raises(InputError, match="reset"):
        session.step()
    session.reset()
    again = pictures(take(session, 20))
    session.stop()
    fresh = WorldSession(ToyModel(), seed=2, clock=simulated(), pace=PaceOptions(None))
    fresh.start("a road")
    assert same(again, pictures(take(fresh, 20)))


@pytest.mark.parametrize("jump_s", (3600.0, 7.0))
def test_a_clock_that_jumps_leads_to_no_burst_of_frames(jump_s):
    clock = simulated()
    session = WorldSession(ToyModel(), clock=clock)
    session.start("a road")
    take(session, 30)
    clock.advance_to(clock.now() + jump_s)
    take(session, 1)
    times = []
    for _ in range(40):
        take(session, 1)
        times.append(clock.now())
    assert session.pacer.jumps == 1
    assert np.diff(times).min() > 0.9 / 16


class TurnedClock(RealClock):
    """A clock that can be turned."""

    turned_s = 0.0

    def now(self):
        return super().now() + self.turned_s

    def wait(self, until_s, jobs):
        super().wait(until_s - self.turned_s, jobs)


@pytest.mark.parametrize("turned_s", (-3600.0, -0.3, 3600.0))
def test_a_clock_that_is_turned_stops_no_world(turned_s):
    clock, frames = TurnedClock(), []
    session = WorldSession(ToyModel(), clock=clock, pace=PaceOptions(100.0))
    session.start("a road")

    def watch():
        frames.extend(take(session, 12))
        clock.turned_s = turned_s
        frames.extend(take(session, 30))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    watching.join(60)
    assert not watching.is_alive() and len(frames) == 42
    assert [frame.index for frame in frames] == list(range(42))
    session.stop()


def test_a_world_stops_with_no_thread_left():
    before = threading.active_count()
    session = WorldSession(ToyModel(), clock=RealClock())
    session.start("a road")
    take(session, 5)
    session.stop()
    assert threading.active_count() == before
    with pytest.raises(InputError):
        session.step()


def test_a_long_world_keeps_no_more_than_a_short_one():
    session = WorldSession(ToyModel(), clock=simulated())
    session.start("a road")
    for count in (100, 2000):
        take(session, count)
        making = session._making
        assert len(making._bound) <= 5 and len(making.frames) <= 12 and not making._latents
