"""A guard of a live world sees every picture before anybody else does, beside the making of the next ones."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.errors import BlockedError, InputError
from worldrt.runtime.live.clock import RealClock, SimulatedClock
from worldrt.runtime.live.offline import generate
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.replay import Script, replaying
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written
from worldrt.runtime.safety.guardrail import Guardrail
from worldrt.runtime.safety.opening import needs_models

from .worlds import ToyModel, offline


class Watchful:
    """A guard that turns pictures into their negatives, and refuses one of them, and dragons."""

    def __init__(self, refused=None):
        self.refused, self.seen, self.texts = refused, [], []

    def check_text(self, text, what="prompt"):
        self.texts.append(text)
        if "dragon" in text:
            raise BlockedError(f"{what}: a dragon")

    def frames(self, frames, pixel_format="rgb24", observer=None, *, start=0):
        for number, frame in enumerate(frames, start):
            if number == self.refused:
                raise BlockedError(f"frame {number}: violence")
            self.seen.append(number)
            yield 255 - frame

    def unload(self):
        pass


def session_of(guard, clock=None, pace=None, **options):
    durations = {"denoise": 0.05, "decode": 0.03, "text": 0.4, "guard": 0.2}
    clock = clock or SimulatedClock(durations.__getitem__)
    return WorldSession(
        ToyModel(), clock=clock, steering=Written(["D"], endless=True), pace=pace, guard=guard, **options
    )


def take(session, count):
    frames = []
    while len(frames) < count and not session.done:
        frames += session.step()
    return frames


@pytest.mark.parametrize("clock", (None, RealClock))
def test_every_picture_is_the_one_that_the_guard_gave_back(clock):
    guard = Watchful()
    session = session_of(guard, clock and clock(), PaceOptions(None))
    session.start("a road")
    frames = take(session, 40)
    session.stop()
    expected = offline(ToyModel(), ["D"] * 20, "a road")
    assert all(np.array_equal(frame.picture, 255 - picture) for frame, picture in zip(frames, expected, strict=False))
    assert guard.seen == list(range(len(guard.seen))) and len(guard.seen) >= 40
    assert all(frame.stamps.decoded <= frame.stamps.checked for frame in frames)


def test_the_guard_works_beside_the_world_which_keeps_its_pace():
    session = session_of(Watchful())
    session.start("a road")
    take(session, 20)
    times = []
    for _ in range(40):
        take(session, 1)
        times.append(session.clock.now())
    assert np.allclose(np.diff(times), 1 / 16) and session.pacer.late == 0


def test_a_guard_that_is_slow_slows_the_world_down_evenly_and_nothing_piles_up():
    clock = SimulatedClock({"denoise": 0.05, "decode": 0.03, "text": 0.1, "guard": 0.5}.__getitem__)
    session = session_of(Watchful(), clock)
    session.start("a road")
    take(session, 40)
    times = []
    for _ in range(40):
        take(session, 1)
        times.append(clock.now())
    assert np.isclose(np.diff(times).mean(), 0.5 / 4, rtol=0.05)
    assert len(session._making._latents) + len(session._making._decoded) <= 2


def test_a_refused_picture_ends_the_world_with_nothing_of_it_shown_and_reset_brings_it_back():
    guard = Watchful(refused=22)
    session = session_of(guard)
    session.start("a road")
    frames = []
    with pytest.raises(BlockedError, match="frame 22: violence"):
        while True:
            frames += session.step()
    assert frames and frames[-1].index < 20, "the pictures of its latent are not shown either"
    with pytest.raises(InputError, match="reset"):
        session.step()
    guard.refused = None
    session.reset()
    assert take(session, 30)[-1].index >= 29


def test_a_prompt_that_came_after_the_failure_is_that_of_the_next_beginning():
    session = session_of(Watchful(refused=3))
    session.start("a road")
    with pytest.raises(BlockedError):
        take(session, 10)
    session.prompt("a field")
    session._guard.refused = None
    session.reset()
    got = take(session, 12)
    expected = offline(ToyModel(), ["D"] * 8, "a field")
    assert all(np.array_equal(frame.picture, 255 - picture) for frame, picture in zip(got, expected, strict=False))


class Broken:
    """A part of a guard that fails."""

    name = "video filter"

    def to(self, device):
        pass

    def unload(self):
        pass

    def refuses(self, frames):
        raise RuntimeError("the GPU is gone")


def test_what_cannot_be_looked_at_counts_as_refused():
    session = session_of(Guardrail([], Broken()))
    session.start("a road")
    with pytest.raises(BlockedError, match=r"frames 0 to 3.*could not check it"):
        take(session, 1)


def test_a_guard_that_gives_back_fewer_pictures_ends_the_world():
    class Losing(Watchful):
        def frames(self, frames, *args, **options):
            return iter(list(frames)[1:])

    session = session_of(Losing())
    session.start("a road")
    with pytest.raises(BlockedError, match="gave back 3 frames for 4"):
        take(session, 1)


def test_frames_of_a_world_of_a_length_are_looked_at_too():
    made = generate(ToyModel(), "a road", 1, ["D"] * 9, clock=session_of(None).clock, guard=Watchful(refused=9))
    shown = []
    with pytest.raises(BlockedError, match="frame 9"):
        shown.extend(made)
    assert len(shown) <= 8
    with pytest.raises(BlockedError, match="dragon"):
        generate(ToyModel(), "a dragon", 1, guard=Watchful())


def test_prompts_of_a_recording_are_looked_at_before_it_is_played():
    script = Script("a road", 0, ("D",), {-1: "D"}, prompts={8: "a dragon"}, frames=40)
    with pytest.raises(BlockedError, match="dragon"):
        replaying(ToyModel(), script, guard=Watchful())
    session = WorldSession(ToyModel(), clock=session_of(None).clock, prompts=script, guard=Watchful())
    session.start("a road")
    with pytest.raises(BlockedError, match="dragon"):
        take(session, 100)


def test_a_prompt_is_looked_at_once():
    guard = Watchful()
    session = session_of(guard)
    session.start("a road")
    session.check("rain")
    session.prompt("rain")
    assert guard.texts == ["a road", "rain"]


@pytest.mark.parametrize(
    "family, variant, needed",
    (
        ("cosmos", "2B-video2world", True),
        ("cosmos", "nano", False),
        ("matrix", "stage4", True),
        ("matrix", "nano-matrix", False),
        ("opendwm", "nano-opendwm", False),
    ),
)
def test_trained_models_of_every_family_want_the_models_of_the_guardrail(family, variant, needed):
    class Bundle:
        class manifest:  # noqa: N801
            pass

    Bundle.manifest.family, Bundle.manifest.variant = family, variant
    assert needs_models([Bundle]) is needed
