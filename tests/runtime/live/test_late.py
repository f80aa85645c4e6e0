"""Controls that reach frames in flight: sooner seen, and replayed to the bit."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from worldrt.runtime.live.clock import SimulatedClock
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.recording import Recording
from worldrt.runtime.live.replay import read, replaying
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Wheel
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.samplers_vp import dpm_sde, phased_ddim
from worldrt.runtime.schedule import methods

from .worlds import ToyModel

STAGE_4 = methods.swin_dpm(4, 4, 1), phased_ddim(4, 4)
STAGE_3 = methods.swin_dpm(8, 4, 2), dpm_sde(8)


def toy(stage=STAGE_4, level=None):
    schedule, table = stage
    return ToyModel(replace(schedule, commit_level=level), table)


def simulated():
    return SimulatedClock({"denoise": 0.05, "decode": 0.03, "text": 0.1}.__getitem__)


def take(session, count):
    frames = []
    while len(frames) < count:
        frames += session.step()
    return frames


def answered_after_s(level):
    """From a key to the first picture that answers it."""
    session = WorldSession(toy(level=level), clock=simulated())
    session.start("a road")
    take(session, 41)
    pressed_s = session.clock.now()
    session.control("DL")
    while not (frames := [frame for frame in session.step() if frame.stamps.control == pressed_s]):
        pass
    assert frames[0].stamps.bound <= frames[0].stamps.denoise_begin <= frames[0].stamps.denoise_end
    return session.clock.now() - pressed_s


def test_each_level_brings_the_answer_a_row_nearer():
    never = answered_after_s(None)
    waits = [answered_after_s(level) for level in (4, 3, 2, 1)]
    assert np.allclose(np.diff([never, *waits]), [0, -0.25, -0.25, -0.25])


def record(path, model, presses):
    """Frames of a session with keys at random."""
    drawn, recording = random.Random(presses), Recording(path, model.facts())
    session = WorldSession(
        model, seed=3, clock=simulated(), log=recording, steering=Wheel(model.controls, "hold"), pace=PaceOptions(200.0)
    )
    session.start("a road")
    pictures = []
    for _ in range(presses):
        session.control(drawn.choice(["D", "DL", "DR", "B", None]))
        pictures += [frame.picture for frame in take(session, drawn.randrange(1, 9))]
    session.stop()
    recording.close()
    return pictures


def by_hand(model, script):
    """The same by a queue and a decoder alone."""

    class Held:
        text = model.encode(script.prompt)

    control = {}

    def condition(frame, name):
        return Condition(queue.conditions.next, model.condition(name))

    def feed(frame):
        control["now"] = script.controls.get(frame, control.get("now"))
        return condition(frame, control["now"])

    queue, decoder, pictures = model.queue(Held, feed, script.seed), model.decoder(), []
    queue.start(model.first(Held, script.seed, ()))
    while len(pictures) < script.frames:
        if (name := script.late.get(queue.row_number)) is not None:
            for slot in np.flatnonzero(queue.levels >= model.schedule.commits_at).tolist():
                queue.rebind(queue.first + slot, condition(queue.first + slot, name))
        for latent in queue.run():
            pictures += list(decoder(latent.latent[:, :, None]))
    return pictures


@pytest.mark.parametrize("stage, level", ((STAGE_4, 1), (STAGE_4, 3), (STAGE_3, 2)))
def test_a_recording_gives_the_same_frames_and_so_does_the_queue_by_hand(tmp_path, stage, level):
    shown = record(tmp_path / "w.jsonl", toy(stage, level), 25)
    (script,) = read(tmp_path / "w.jsonl")[1]
    assert len(script.late) > 5 and script.frames == len(shown)
    session = replaying(toy(stage, level), script, clock=simulated(), pace=PaceOptions(None))
    session.start(script.prompt)
    for got in ([frame.picture for frame in take(session, script.frames)], by_hand(toy(stage, level), script)):
        assert all(np.array_equal(a, b) for a, b in zip(shown, got, strict=False))


def test_without_a_level_nothing_is_bound_late(tmp_path):
    record(tmp_path / "w.jsonl", toy(), 10)
    (script,) = read(tmp_path / "w.jsonl")[1]
    assert script.controls and not script.late


def test_a_key_that_is_let_go_leaves_frames_in_flight_where_idling_is_random():
    wheel = Wheel(ToyModel.controls, "random")
    wheel.press("DL", 1.0)
    assert wheel.late(0).control == "DL" and wheel.late(1) is None
    wheel.press(None, 2.0)
    assert wheel.late(2) is None
