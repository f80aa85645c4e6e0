"""The nano Matrix as a world: every method on one queue, streaming equal to the whole, base clips, given videos."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.live.clock import RealClock, SimulatedClock
from worldrt.runtime.live.controls import random_signal
from worldrt.runtime.live.model import Told
from worldrt.runtime.live.offline import generate
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.queue.noise import CounterNoise, Use
from worldrt.runtime.schedule import methods

METHODS = {
    "The Matrix, stage 4": methods.swin_dpm(4, 4, 1),
    "The Matrix, stage 3": methods.swin_dpm(8, 4, 2),
    "FIFO, 4 partitions": methods.fifo(2, 4, lookahead=False),
    "FIFO with lookahead": methods.fifo(2, 4),
    "OpenDWM": methods.opendwm(24, 4),
    "pyramid": methods.pyramid(4, 2, history=1),
    "autoregressive": methods.autoregressive(4, 2, 2),
    "full clip": methods.full_clip(4, 4),
}


@pytest.fixture
def make(nano_matrix):
    return lambda **options: World(Models.open([nano_matrix]), **options)


def simulated():
    return SimulatedClock({"denoise": 0.1, "decode": 0.05, "text": 0.1}.__getitem__)


def dense(world, told, controls, frames, seed):
    """The clean latents of a plan, computed on a grid of all frames and rows, with nothing of the queue but its noise.
    There is one guidance term, and no noise on the history."""
    s, table, model = world.schedule, world.recipe.table, world._window(world._models)
    drawn = CounterNoise(seed, world.shape)
    T, W, start = s.steps, s.group, s.steps - s.shift if s.fill == "renoise" else 0
    video = world.first(told, seed, ("D",))
    grid, previous, clean = {}, {}, {}
    for frame in range(-s.given, frames + s.slots):
        level = s.level(frame // W, start) if frame >= 0 else 0
        noise = drawn(Use.START, [frame], [level], 0)[0].astype(np.float64)
        known = None if video is None or frame + s.given >= video.shape[2] else video[:, :, frame + s.given]
        signal = 0 if known is None else table.signal[level] * known.astype(np.float64)
        grid[frame] = (signal + table.noise[level] * noise).astype(np.float32)
        if known is None:
            grid[frame] = noise.astype(np.float32) * np.float32(table.noise[T])
    for row in count(start):
        first = max(0, (row - T) // s.shift + 1) * W
        if first >= frames:
            return [clean[frame] for frame in sorted(clean) if s.discard <= frame < frames]
        level = {frame: s.level(frame // W, row) for frame in grid}
        advances = row + 1 >= T and (row + 1 - T) % s.shift == 0
        new = {}
        for window in s.windows:
            shown = [f for f in range(first + window.start, first + window.stop) if f >= -s.given]
            x = np.stack([grid[f] for f in shown], axis=2)
            labels = [level[f] if f >= first else s.history_label for f in shown]
            steered = np.stack([world.condition(controls[f + s.given])["control"] for f in shown])[None]
            label = table.labels[labels].astype(np.float32)[None]
            x0 = model.x0("cond", told.text[0], x, label, {"control": steered})
            for f in range(first + window.write_start, first + window.write_stop):
                if row < f // W * s.shift:
                    continue
                plain = f not in previous or (table.first_when_clean and advances)
                a, b, c, d = (table.first if plain else table.steps)[level[f]]
                found = x0[:, :, shown.index(f)]
                value = a * grid[f].astype(np.float64) + b * found.astype(np.float64)
                if table.needs_previous:
                    value = value + c * previous.get(f, np.zeros(world.shape)).astype(np.float64)
                if table.needs_noise:
                    value = value + d * drawn(Use.STEP, [f], [level[f]], 0)[0].astype(np.float64)
                new[f] = value.astype(np.float32), found
        for f, (value, found) in new.items():
            grid[f], previous[f] = value, found
            if level[f] == 1:
                clean[f] = value
        if advances and table.forget_at_shift:
            previous = {}


PUBLISHED = {
    "The Matrix, stage 3": methods.swin_dpm(20, 4, 4),
    "FIFO, 16 frames, 4 partitions": methods.fifo(16, 4, lookahead=False),
    "FIFO, 16 frames, 4 partitions, with lookahead": methods.fifo(16, 4),
}
"""In their published sizes; `METHODS` has small ones of the same form."""


@pytest.mark.slow
@pytest.mark.parametrize("method", PUBLISHED)
def test_published_sizes_stream_as_their_whole_plan_computes_to_the_bit(make, method):
    world = make(schedule=PUBLISHED[method], init=np.full((5, 32, 48, 3), 90, np.uint8))
    assert_streams_as_the_whole(world)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_streams_as_its_whole_plan_computes_to_the_bit(make, method):
    schedule = METHODS[method]
    world = make() if method == "The Matrix, stage 4" else make(schedule=schedule)
    if schedule.fill == "prefill":
        world = make(schedule=schedule, init=np.full((5, 32, 48, 3), 90, np.uint8))
    assert_streams_as_the_whole(world)


def assert_streams_as_the_whole(world):
    schedule = world.schedule
    frames = schedule.discard + schedule.group + 2
    controls = random_signal(frames + 2 * schedule.slots + schedule.given, 3)
    steering = Written(controls, -world.schedule.given, endless=True)
    session = WorldSession(world, seed=7, clock=RealClock(), steering=steering, pace=PaceOptions(None))
    session.start("a road")
    told = Told(world.encode("a road"))
    latents = dense(world, told, controls, frames, 7)
    whole = world._models.vae("world").decoder(len(latents), *world.shape[2:])
    expected = list(whole(np.stack(latents, axis=2)))
    got = [frame.picture for frame in islice(session.frames(), len(expected))]
    session.stop()
    assert expected and all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_world_of_a_length_has_sixteen_frames_a_second_and_follows_its_signal(make):
    world = make()
    straight = list(generate(world, "a road", 1, ["D"] * 9, clock=simulated()))
    left = list(generate(world, "a road", 1, ["D"] * 5 + ["DL"] * 4, clock=simulated()))
    assert len(straight) == len(left) == 16
    assert all(picture.shape == (32, 48, 3) for picture in straight)
    equal = [np.array_equal(a, b) for a, b in zip(straight, left, strict=True)]
    assert not all(equal)
    again = list(generate(world, "a road", 1, ["D"] * 9, clock=simulated()))
    assert all(np.array_equal(a, b) for a, b in zip(straight, again, strict=True))
    other = list(generate(world, "a road", 1, ["D"] * 9, seed=1, clock=simulated()))
    assert not np.array_equal(straight[0], other[0])


def test_branches_of_the_nano_world_differ_only_after_they_part(make):
    session = WorldSession(make(), clock=simulated())
    session.start("a road")
    session.control("D")
    for _ in range(3):
        session.step()
    other = session.branch(clock=simulated())
    session.control("DL")
    other.control("DR")
    mine, theirs = ([frame.picture for frame in islice(s.frames(), 44)] for s in (session, other))
    equal = [np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)]
    first = equal.index(False)
    assert first > 0 and not any(equal[first + 4 :])


def test_a_snapshot_holds_the_caches_of_the_vae_too(make):
    session = WorldSession(make(), clock=simulated(), pace=PaceOptions(None))
    session.start("a road")
    list(islice(session.frames(), 18))
    state = session.snapshot()
    first = [frame.picture for frame in islice(session.frames(), 12)]
    session.restore(state)
    again = [frame.picture for frame in islice(session.frames(), 12)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_given_video_is_what_the_world_begins_with(make):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (20, 32, 48, 3), np.uint8)
    world = make(init=video)
    told = Told(world.encode("a road"))
    first = world.first(told, 0, ("D",))
    assert np.array_equal(first, world._models.vae("world").encode(video[:17]))
    short = make(init=video[:9]).first(told, 0, ("D",))
    assert np.array_equal(short[:, :, :3], world._models.vae("world").encode(video[:9])) and not short[:, :, 3:].any()
    picture = make(init=video[:1]).first(told, 0, ("D",))
    assert np.array_equal(picture[:, :, :3], world._models.vae("world").encode(np.repeat(video[:1], 9, axis=0)))
    with pytest.raises(InputError, match="frames to go on from"):
        make(init=video[:, :16]).first(told, 0, ("D",))


def test_a_prompt_scale_evaluates_both_texts(make):
    plain, guided = make(), make(guidance=4.0)
    assert [term.model for term in guided.schedule.terms] == ["cond", "uncond"]
    told = Told(plain.encode("a road"))
    assert not np.array_equal(told.text[0], told.text[1])
    a, b = (next(generate(world, "a road", 1, clock=simulated())) for world in (plain, guided))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    "options, text", (({"size": (50, 32)}, "multiples of 16"), ({"guidance": float("nan")}, "guidance scale"))
)
def test_what_a_world_cannot_be_is_refused(make, options, text):
    with pytest.raises(InputError, match=text):
        make(**options)


@pytest.mark.parametrize(
    "length, signal, text", ((0, None, "length"), (10**6, None, "length"), (1, "D,LEFT", "expected one of"))
)
def test_a_length_or_a_signal_that_cannot_be_is_refused(make, length, signal, text):
    with pytest.raises(InputError, match=text):
        generate(make(), "a road", length, signal)
