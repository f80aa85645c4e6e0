"""Streaming equals a dense computation of the same plan bit for bit, in any order of windows, and after a restore."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from worldrt.engine.errors import InputError, ShapeError
from worldrt.runtime.level_table import flow_euler, of_sampler
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.noise import CounterNoise, Use
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.queue.state import branch, restore, snapshot
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.samplers_vp import dpm_sde, phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.guidance import Segment, classifier_free, history_guidance
from worldrt.runtime.schedule.law import Schedule, Term, Window
from worldrt.runtime.schedule.plan import Plan

SHAPE = (2, 3, 4, 5)
SEED = 20261121


def toy(bias):
    """A model that mixes the frames of its window, and depends on levels and conditions."""

    def x0(x, level, conditions):
        at = level[:, None, :, None, None] / np.float32(1000)
        control = conditions["control"][:, None, :, :, None]
        mixed = np.float32(0.6) * x + np.float32(0.3) * np.sin(x.mean(2, keepdims=True))
        return mixed + np.float32(0.2) * np.cos(3 * at) + np.float32(0.1) * control + np.float32(bias)

    return x0


MODELS = {"cond": toy(0.0), "uncond": toy(0.25)}


def control(frame, change=0.0):
    return (np.arange(8, dtype=np.float32).reshape(2, 4) * np.float32(0.1) + np.float32(np.sin(frame) + change),)


def feed(frames, given=0, change_from=10**9):
    """Conditions of so many frames, each a function of its number."""

    def of(frame):
        if frame >= frames:
            return None
        (value,) = control(frame, 0.5 if frame >= change_from else 0.0)
        return Condition(frame + given, {"control": value})

    return of


def dense(schedule, table, frames, video):
    """All levels of all frames, row after row, with nothing of the runtime but its numbers, noise and toy model."""
    s, drawn = schedule, CounterNoise(SEED, SHAPE)

    def noise(use, frame, level, row):
        return drawn(use, [frame], [level], row)[0]

    T, W = s.steps, s.group
    total = (-(-frames // W) - 1) * W + s.slots if s.drain == "pad" else frames
    start = T - s.shift if s.fill == "renoise" else 0
    known = s.slots if s.fill == "renoise" else 0
    grid, previous, clean = {}, {}, {}
    for frame in range(-s.given, total):
        level = s.level(frame // W, start) if frame >= 0 else 0
        value = noise(Use.START, frame, level, 0).astype(np.float64)
        if frame < known:
            value = table.signal[level] * video[:, :, frame + s.given].astype(np.float64) + table.noise[level] * value
            grid[frame] = value.astype(np.float32)
        else:
            grid[frame] = noise(Use.START, frame, T, 0) * np.float32(table.noise[T])
    for row in count(start):
        first = max(0, (row - T) // s.shift + 1) * W if row >= T else 0
        if first >= frames:
            return clean
        levels = {frame: s.level(frame // W, row) for frame in grid}
        advancing = row - T + 1 >= 0 and (row - T + 1) % s.shift == 0
        new = {}
        for window in s.windows:
            stop = min(first + window.stop, total)
            shown = [f for f in range(first + window.start, stop) if f >= -s.given]
            written = range(first + window.write_start, min(first + window.write_stop, total))
            written = [f for f in written if row >= f // W * s.shift]
            if not written:
                continue
            own = [levels[f] for f in shown if f >= first]
            history = [f for f in shown if f < first]
            x0 = np.zeros((*SHAPE[:2], len(shown), *SHAPE[2:]))
            for term in terms_on(s, len(history)):
                x = np.stack([grid[f] for f in shown], axis=2)
                for place, level in enumerate(term.noise):
                    if level:
                        eps = noise(Use.HISTORY, history[place], level, row - start).astype(np.float64)
                        x[:, :, place] = (
                            table.signal[level] * x[:, :, place].astype(np.float64) + table.noise[level] * eps
                        )
                labels = np.tile(table.labels[[*term.label, *own]].astype(np.float32), (SHAPE[0], 1))
                given = np.stack([control(min(f, frames - 1))[0] for f in shown], axis=1)
                x0 += term.weight * MODELS[term.model](x, labels, {"control": given}).astype(np.float64)
            x0 = x0.astype(np.float32)
            for frame in written:
                plain = frame not in previous or (table.first_when_clean and advancing)
                a, b, c, d = (table.first if plain else table.steps)[levels[frame]]
                found = x0[:, :, shown.index(frame)]
                value = a * grid[frame].astype(np.float64) + b * found.astype(np.float64)
                if table.needs_previous:
                    value = value + c * previous.get(frame, np.zeros(SHAPE)).astype(np.float64)
                if table.needs_noise:
                    value = value + d * noise(Use.STEP, frame, levels[frame], 0).astype(np.float64)
                new[frame] = value.astype(np.float32), found
        for frame, (value, found) in new.items():
            grid[frame] = value
            previous[frame] = found
            if levels[frame] == 1 and s.discard <= frame < frames:
                clean[frame] = value
        if advancing and table.forget_at_shift:
            previous = {}


def terms_on(schedule, history):
    """The guidance terms for a window with so much history: levels of noise and labels written out, equal ones one."""
    weights = {}
    for term in schedule.terms:
        noise = tuple(term.noise or (0,) * schedule.history)[schedule.history - history :]
        label = tuple(
            term.label or [level or schedule.history_label for level in term.noise or (0,) * schedule.history]
        )
        key = term.model, noise, label[schedule.history - history :]
        weights[key] = weights.get(key, 0) + term.weight
    return [Term(weight, *key) for key, weight in weights.items() if weight]


def euler(schedule):
    return flow_euler(schedule.steps, 3.0)


def sde(schedule):
    return dpm_sde(schedule.steps)


def phased(schedule):
    return phased_ddim(schedule.steps, schedule.groups)


def ab2(schedule):
    return of_sampler(rectified_flow_ab2(schedule.steps - 1, 80.0, 0.002))


guided = history_guidance(6, 2, [Segment(1.5), Segment(0.5, (1,), 2, 5)])
CASES = {
    "full clips": (methods.full_clip(6, 5), ab2, 10),
    "full clips after history": (methods.full_clip(5, 3, history=2), sde, 9),
    "chunks": (methods.autoregressive(5, 2, 3), euler, 6),
    "pyramid": (methods.pyramid(8, 2), sde, 9),
    "pyramid with a slope that does not divide": (methods.pyramid(7, 3, history=2), ab2, 7),
    "pyramid that shrinks": (replace(methods.pyramid(6, 2, history=1), drain="shrink"), euler, 5),
    "FIFO": (methods.fifo(4, 3), euler, 20),
    "FIFO of odd frames": (methods.fifo(5, 2), ab2, 12),
    "FIFO without lookahead": (methods.fifo(4, 2, lookahead=False), sde, 12),
    "FIFO that shrinks": (replace(methods.fifo(5, 2), drain="shrink"), euler, 12),
    "Swin-DPM": (methods.swin_dpm(8, 4, 2), sde, 9),
    "Swin-DPM in one step a shift": (methods.swin_dpm(4, 4, 1), phased, 8),
    "OpenDWM": (methods.opendwm(6, 2), euler, 7),
    "a prompt scale": (replace(methods.opendwm(6, 2), terms=classifier_free((Term(),), 4.0)), euler, 6),
    "history guidance": (replace(methods.pyramid(6, 3, history=2), terms=guided), ab2, 6),
    "history guidance from a cold start": (Schedule(6, 3, 1, 2, terms=guided, history_label=1), sde, 6),
    "groups that do not fill": (Schedule(4, 2, 3, 1, drain="shrink"), euler, 7),
}


@pytest.fixture(params=CASES)
def case(request):
    schedule, table, frames = CASES[request.param]
    known = schedule.given + (schedule.slots if schedule.fill == "renoise" else 0)
    rng = np.random.default_rng(3)
    video = rng.normal(size=(*SHAPE[:2], known, *SHAPE[2:])).astype(np.float32) if known else None
    return schedule, table(schedule), frames, video


def opened(case, **options):
    schedule, table, frames, video = case
    options = {"feed": feed(frames, schedule.given), "seed": SEED} | options
    queue = Queue(Plan(schedule), table, MODELS, SHAPE, **options)
    queue.start(video)
    return queue


def drain(queue, each=map, shuffle=None):
    found = {}
    while (row := queue.next_row()) is not None:
        if shuffle is not None:
            row = replace(row, calls=tuple(row.calls[i] for i in shuffle.permutation(len(row.calls))))
        found |= {frame.number: frame.latent for frame in queue.run(row, each)}
    return found


def same(found, expected):
    assert found.keys() == expected.keys()
    for number, latent in expected.items():
        assert np.array_equal(found[number], latent), f"frame {number}"


def test_streaming_equals_the_dense_computation(case):
    schedule, _, frames, _ = case
    found = drain(opened(case))
    assert list(found) == list(range(schedule.discard, frames))
    assert all(np.isfinite(latent).all() and latent.std() > 0.01 for latent in found.values())
    same(found, dense(schedule, *case[1:]))


def random_case(seed):
    """Any numbers that go together: windows of random cuts that see more than they write, fills, drains, samplers."""
    rng = np.random.default_rng(seed)
    steps, group, history = (int(rng.integers(*between)) for between in ((2, 8), (1, 4), (0, 4)))
    shift = int(rng.choice([s for s in range(1, steps + 1) if seed % 3 == 0 or steps % s == 0]))
    fill = str(rng.choice(["cold", "renoise", "prefill"][: 3 if history else 2]))
    schedule = Schedule(steps, shift, group, history, fill=fill, drain=str(rng.choice(["pad", "shrink"])))
    slots = schedule.slots
    if steps % shift == 0:
        cuts = sorted({0, slots, *rng.integers(0, slots, 3).tolist()})
        windows = []
        for low, high in pairwise(cuts):
            start, stop = int(rng.integers(-history, low + 1)), int(rng.integers(high, slots + 1))
            windows.append(Window(start, stop - start, low, high))
        schedule = replace(schedule, windows=tuple(windows), history_label=int(rng.integers(0, 2)))
    table = (euler, sde, ab2)[seed % 3](schedule)
    known = schedule.given + (slots if fill == "renoise" else 0)
    video = rng.normal(size=(*SHAPE[:2], known, *SHAPE[2:])).astype(np.float32) if known else None
    return schedule, table, int(rng.integers(1, 9)), video


@pytest.mark.parametrize("seed", range(80))
def test_any_numbers_stream_as_the_dense_computation(seed):
    case = random_case(seed)
    same(drain(opened(case), shuffle=np.random.default_rng(seed)), dense(*case))


def test_windows_may_run_in_any_order_and_at_the_same_time(case):
    found = drain(opened(case))
    same(drain(opened(case), shuffle=np.random.default_rng(5)), found)
    with ThreadPoolExecutor(4) as pool:
        same(drain(opened(case), each=pool.map), found)


def test_a_restored_queue_goes_on_as_if_nothing_was(case, tmp_path):
    whole = drain(opened(case))
    for stop in (0, 1, 3, 8):
        queue, found = opened(case), {}
        for _ in range(stop):
            found |= {frame.number: frame.latent for frame in queue.run()}
        save_file(snapshot(queue), tmp_path / "state.safetensors")
        later = Queue(queue.plan, queue.table, MODELS, SHAPE, feed=feed(case[2], case[0].given), seed=SEED)
        restore(later, load_file(tmp_path / "state.safetensors"))
        same(found | drain(later), whole)


def test_branches_differ_only_after_they_part():
    case = (methods.opendwm(6, 2), sde(methods.opendwm(6, 2)), 12, None)
    queue, found = opened(case), {}
    for _ in range(9):
        found |= {frame.number: frame.latent for frame in queue.run()}
    state = snapshot(queue)
    one, two = branch(queue, feed(12)), branch(queue, feed(12, change_from=6))
    branches = [dict(found), dict(found)]
    while not two.done:  # in turns, so that nothing they share goes unseen
        for way, latents in zip((one, two), branches, strict=True):
            latents |= {frame.number: frame.latent for frame in way.run()}
    assert all(np.array_equal(array, snapshot(queue)[name]) for name, array in state.items())
    same(branches[0], drain(opened(case)))
    same(branches[0], found | drain(queue))
    differ = [number for number in range(12) if not np.array_equal(branches[0][number], branches[1][number])]
    assert differ == [4, 5, 6, 7, 8, 9, 10, 11]  # frame 6 enters when 4 is the oldest in flight


def test_a_longer_stream_begins_with_the_same_frames(case):
    schedule, table, frames, video = case
    if schedule.drain == "shrink":
        return
    more = feed(frames + 5, schedule.given)

    def repeating(frame):  # the frames that are thrown away have the last condition, too
        found = more(frame)
        return found and Condition(found.sequence, {"control": control(min(frame, frames - 1))[0]})

    longer = drain(opened((schedule, table, frames + 5, video), feed=repeating))
    same({number: longer[number] for number in range(schedule.discard, frames)}, drain(opened(case)))


def test_a_stream_without_frames_is_done_at_once():
    queue = Queue(Plan(methods.opendwm(4, 2)), flow_euler(4), MODELS, SHAPE, feed=lambda frame: None)
    assert queue.run() == [] and queue.done


def test_mistakes_at_the_start_and_on_rows_say_what_is_wrong():
    plan, table = Plan(methods.swin_dpm(4, 2, 1)), flow_euler(4)
    with pytest.raises(InputError, match=r"expected \(2, 3, 3, 4, 5\)"):
        Queue(plan, table, MODELS, SHAPE).start()
    with pytest.raises(InputError, match="expected None"):
        Queue(Plan(methods.opendwm(4, 2)), table, MODELS, SHAPE).start(np.zeros((2, 3, 1, 4, 5), np.float32))
    with pytest.raises(InputError, match="expected 4 steps as in the schedule, got 5"):
        Queue(plan, flow_euler(5), MODELS, SHAPE)
    with pytest.raises(InputError, match=r"got \(2, 3\)"):
        Queue(plan, table, MODELS, (2, 3))
    with pytest.raises(InputError, match=r"models for \['cond'\], got \['other'\]"):
        Queue(plan, table, {"other": toy(0)}, SHAPE)
    queue = Queue(plan, table, MODELS, SHAPE, feed=feed(9, 1))
    with pytest.raises(InputError, match="fill 'renoise' begins with start"):
        queue.run()
    queue.start(np.zeros((2, 3, 3, 4, 5), np.float32))
    with pytest.raises(InputError, match="has begun"):
        queue.start(np.zeros((2, 3, 3, 4, 5), np.float32))
    with pytest.raises(InputError, match="rows follow one another"):
        queue.run(plan.row(1))
    with pytest.raises(InputError, match="history needs a condition"):
        Queue(plan, table, MODELS, SHAPE, feed=lambda frame: None).start(np.zeros((2, 3, 3, 4, 5), np.float32))


def test_a_model_that_fails_leaves_the_stream_as_it_was():
    case = (methods.fifo(4, 2), sde(methods.fifo(4, 2)), 9, np.zeros((*SHAPE[:2], 10, *SHAPE[2:]), np.float32))
    queue, whole, calls = opened(case), drain(opened(case)), []

    def failing(x, level, conditions):
        calls.append(len(calls))
        if len(calls) % 7 == 3:
            raise RuntimeError("out of luck")
        return MODELS["cond"](x, level, conditions) if len(calls) % 7 != 5 else np.zeros((1, 1), np.float32)

    queue.evaluation = Queue(queue.plan, queue.table, failing, SHAPE).evaluation
    found, errors = {}, 0
    while not queue.done:
        try:
            found |= {frame.number: frame.latent for frame in queue.run()}
        except (RuntimeError, ShapeError):
            errors += 1
    assert errors > 4
    same(found, whole)


def test_a_foreign_state_changes_nothing():
    case = (methods.opendwm(4, 2), flow_euler(4), 9, None)
    queue = opened(case)
    queue.run()
    before = snapshot(queue)
    other = opened((methods.opendwm(6, 2), flow_euler(6), 9, None))
    for state, says in (
        (snapshot(other), "under the plan"),
        ({name: array for name, array in before.items() if name != "levels"}, "levels too"),
        (before | {"latents": before["latents"][:, :, :1]}, "latents: expected float32"),
        (before | {"counters": before["counters"] * 1000}, "out of range"),
        (before | {"levels": before["levels"] - 100}, "out of range"),
        (before | {"condition.control": before["condition.control"][:, :1]}, "condition.control"),
    ):
        with pytest.raises(InputError, match=says):
            restore(queue, state)
    assert all(np.array_equal(array, snapshot(queue)[name]) for name, array in before.items())


def test_a_glitch_of_the_model_ends_with_the_frames_it_touched():
    """A prediction that is not a number does not live on in the slots it was made for."""
    schedule = Schedule(4, 1)
    table = ab2(schedule)
    broken = [True]

    def model(x, level, conditions):
        return np.full_like(x, np.nan) if broken[0] else np.float32(0.5) * np.nan_to_num(x)

    queue = Queue(Plan(schedule), table, model, SHAPE, seed=1)
    for _ in range(5):
        queue.run()
    broken[0] = False
    later = [frame for _ in range(9) for frame in queue.run()]
    finite = {frame.number: bool(np.isfinite(frame.latent).all()) for frame in later}
    assert finite == {number: number > 4 for number in range(2, 11)}
