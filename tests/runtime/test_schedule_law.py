"""The law of schedules on thousands of parameter sets, against a simulation that knows frames and rows only."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldrt.engine.errors import InputError
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.cost import cost, latency_s
from worldrt.runtime.schedule.law import Schedule, Term, Window
from worldrt.runtime.schedule.plan import Plan


@st.composite
def schedules(draw, divides: bool = False):
    steps = draw(st.integers(1, 16))
    shift = draw(st.sampled_from([s for s in range(1, steps + 1) if not divides or steps % s == 0]))
    group, history = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    fill = draw(st.sampled_from(["cold", "renoise", "prefill"] if history else ["cold", "renoise"]))
    made = Schedule(steps, shift, group, history, fill=fill, drain=draw(st.sampled_from(["pad", "shrink"])))
    if steps % shift or draw(st.booleans()):
        return made
    cuts = sorted(draw(st.sets(st.integers(1, max(1, made.slots - 1)), max_size=5)) - {made.slots})
    windows = []
    for low, high in zip([0, *cuts], [*cuts, made.slots], strict=True):
        start = draw(st.integers(-history, low))
        windows.append(Window(start, draw(st.integers(high, made.slots)) - start, low, high))
    return replace(made, windows=tuple(draw(st.permutations(windows))))


def simulate(schedule: Schedule, frames: int):
    """Play a stream of so many frames on integers. Gives the levels before each row by frame, and the calls made until
    each frame left; asserts what must hold on every row."""
    level, writes, emitted, calls, table = {}, {}, [], [], []
    T, first = schedule.steps, 0
    padded = schedule.drain == "pad"
    for number, row in enumerate(Plan(schedule).rows(frames)):
        for frame in range(first, first + schedule.slots):
            if (padded or frame < frames) and frame not in level:
                group = frame // schedule.group
                level[frame] = T if schedule.fill != "renoise" else min(T, (group + 1) * schedule.shift - number)
                writes[frame] = T - level[frame]
        table.append(dict(level))
        before, touched = dict(level), set()
        known = schedule.given + first
        for call in row.calls:
            assert call.start >= -min(schedule.history, known)
            assert call.start + call.length == len(call.to_level) + call.start
            for place, to_level in enumerate(call.to_level):
                slot = call.start + place
                if not call.write_start <= slot < call.write_stop:
                    assert slot < 0 or to_level == before[first + slot]
                    continue
                frame = first + slot
                assert frame not in touched and to_level == before[frame] - 1 >= 0
                touched.add(frame)
                level[frame] = to_level
                writes[frame] += 1
            for branch in call.branches:
                shown = [before[first + call.start + i] if call.start + i >= 0 else 0 for i in range(call.length)]
                assert list(branch.read_label) == shown
        assert all(level[f] <= level[f + 1] for f in level if f + 1 in level)
        assert {f for f in level if f >= first and level[f] == 0} == set(range(first, first + row.advance))
        for frame in range(first, first + row.advance):
            assert writes[frame] == T
            emitted.append(frame)
            calls.append(len(row.calls))
        first += row.advance
    assert emitted[:frames] == list(range(frames)) and (padded or len(emitted) == frames)
    return table


@settings(max_examples=1500, deadline=None)
@given(schedules(), st.integers(1, 20))
def test_every_frame_is_written_t_times_in_order_and_leaves_once(schedule, frames):
    table = simulate(schedule, frames)
    skipped = schedule.steps - schedule.shift if schedule.fill == "renoise" else 0
    for number, levels in enumerate(table):
        for frame, level in levels.items():
            assert level == schedule.level(frame // schedule.group, number + skipped)


@settings(max_examples=1500, deadline=None)
@given(schedules())
def test_cost_is_what_a_simulation_counts(schedule):
    plan, counted = Plan(schedule), cost(Plan(schedule))
    warm = schedule.rows_to_first + schedule.shift * (1 + schedule.history // schedule.group)
    rows = list(islice(plan.rows(), warm, warm + 3 * schedule.shift))
    frames = sum(row.advance for row in rows)
    assert frames == 3 * schedule.group
    assert counted.calls_per_frame == Fraction(sum(len(row.calls) for row in rows), frames)
    assert counted.frames_in_flight == schedule.slots == len(rows[0].levels)
    first = next(number for number, row in enumerate(plan.rows(), 1) if row.advance)
    assert counted.rows_to_first == first
    if schedule.steps % schedule.shift == 0:
        windows = len(schedule.windows)
        assert counted.calls_per_frame * counted.frames_in_flight == schedule.steps * windows
        assert counted.calls_per_row == windows and counted.rows_in_flight == schedule.steps
        assert rows[: schedule.shift] == rows[schedule.shift : 2 * schedule.shift] == list(plan.steady)


@settings(max_examples=300, deadline=None)
@given(schedules(), st.integers(0, 200))
def test_a_row_by_its_number_is_the_row_of_the_stream(schedule, number):
    plan = Plan(schedule)
    assert plan.row(number) is next(islice(plan.rows(), number, None))


def published(steps: int, horizon: int, slope: float) -> np.ndarray:
    """Diffusion forcing's scheduling matrix, 0 clean: K[m, t] = clip(S + floor(t u) - m, 0, S)."""
    rows = steps + int((horizon - 1) * slope) + 1
    return np.array([[min(max(steps + int(t * slope) - m, 0), steps) for t in range(horizon)] for m in range(rows)])


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.data())
def test_diffusion_forcing_matrices_are_the_law(steps, horizon, data):
    slope = data.draw(st.integers(1, steps))
    pyramid = replace(methods.pyramid(steps, slope), drain="shrink")
    autoregressive = replace(methods.autoregressive(steps, 1, 2), drain="shrink")
    for schedule, matrix in (
        (pyramid, published(steps, horizon, slope)),
        (autoregressive, published(steps, horizon, steps)),
        (methods.full_clip(steps, horizon), np.tile(np.arange(steps, -1, -1)[:, None], (1, horizon))),
    ):
        table = simulate(schedule, horizon)
        found = np.array([[levels.get(frame, steps) for frame in range(horizon)] for levels in table])
        assert np.array_equal(found, matrix[:-1])  # the last row of the matrix is clean, and nothing is done on it
        assert not matrix[-1].any()


@pytest.mark.parametrize(("frames", "partitions"), [(16, 4), (17, 4), (2, 1), (3, 2), (5, 3)])
def test_fifo_windows_are_the_published_ones(frames, partitions):
    plan = Plan(methods.fifo(frames, partitions))
    (row,) = plan.steady
    places = []  # of the published queue, whose first half window is the lookahead
    for rank, call in enumerate(row.calls):
        start = rank // 2 * frames + rank % 2 * (frames // 2)
        assert (call.start + frames // 2, call.length) == (start, frames)
        middle = start + frames // 2 + rank % 2 * (frames % 2)
        assert (call.write_start + frames // 2, call.write_stop + frames // 2) == (middle, start + frames)
        places += range(call.write_start, call.write_stop)
    assert len(row.calls) == 2 * partitions and places == list(range(frames * partitions))
    assert row.levels == tuple(range(1, frames * partitions + 1))
    assert row.calls[0].branches[0].read_label[: frames // 2] == (1,) * (frames // 2)
    begun = methods.fifo_start(plan.schedule, frames)
    assert begun[frames // 2 :][-frames:] == tuple(range(frames)) and set(begun[:-frames]) <= {0}


@pytest.mark.parametrize(
    ("schedule", "calls", "in_flight"),
    [
        (methods.full_clip(50, 17), Fraction(50, 17), 17),
        (methods.autoregressive(50, 1, 4), 50, 1),
        (methods.pyramid(50, 10), 10, 5),
        (methods.fifo(16, 4, lookahead=False), 4, 64),
        (methods.fifo(16, 4), 8, 64),
        (methods.swin_dpm(20, 4, 4), Fraction(5, 4), 16),
        (methods.swin_dpm(4, 4, 1), 1, 4),
        (methods.swin_dpm(4, 4, 2), Fraction(1, 2), 8),
        (methods.opendwm(), 4, 6),
    ],
)
def test_methods_cost_what_is_published(schedule, calls, in_flight):
    found = cost(Plan(schedule))
    assert (found.calls_per_frame, found.frames_in_flight) == (calls, in_flight)


def test_latency_counts_waiting_and_the_rows_after_commit():
    matrix = Plan(methods.swin_dpm(4, 4, 1))
    assert latency_s(matrix, 0.1) == pytest.approx(0.45)
    assert latency_s(matrix, 0.1, frames_per_s=4) == pytest.approx(4.5 / 4)
    late = Plan(replace(methods.swin_dpm(4, 4, 1), commit_level=2))
    assert latency_s(late, 0.1) == pytest.approx(0.25)
    waiting = Plan(Schedule(7, 3))  # a frame enters 2 rows before its first one
    assert latency_s(waiting, 1.0) == pytest.approx(1.5 + 9)


def test_a_stream_without_end_keeps_no_more_rows_than_a_period():
    plan = Plan(methods.opendwm())
    kept = {id(row) for row in islice(plan.rows(), 200_000)}
    assert len(kept) == 24
    assert all(row is plan.steady[n % 4] for n, row in zip(count(), islice(plan.rows(), 24, 48), strict=False))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Schedule(0, 1), "steps"),
        (lambda: Schedule(4, 5), "shift: expected 1 to 4"),
        (lambda: Schedule(4, 1, 0), "group"),
        (lambda: Schedule(4, 4, 1, 0, fill="prefill"), "a prefill needs history"),
        (lambda: Schedule(10_000, 1, 2), "raise shift or lower group"),
        (lambda: Schedule(4, 2, commit_level=5), "commit_level"),
        (lambda: Schedule(4, 3, windows=(Window(0, 1, 0, 1), Window(1, 1, 1, 2))), "divisor of 4"),
        (lambda: Plan(Schedule(2, 1, windows=(Window(-1, 3, 0, 2),))), "the history"),
        (lambda: Plan(Schedule(2, 1, windows=(Window(0, 3, 0, 2),))), "0 to 1|to 1 "),
        (lambda: Plan(Schedule(2, 1, 1, 1, windows=(Window(-1, 3, -1, 2),))), "history is never written"),
        (lambda: Plan(Schedule(2, 1, windows=(Window(0, 2, 0, 2), Window(0, 2, 1, 2)))), "two windows"),
        (lambda: Plan(Schedule(2, 1, windows=(Window(0, 2, 0, 1),))), "slot 1 is written by no window"),
        (lambda: Plan(Schedule(2, 1, windows=(Window(0, 2, 1, 2),))), "slot 0 is written by no window"),
        (lambda: Plan(Schedule(2, 1, terms=(Term(2.0),))), "sum of 1, got 2"),
        (lambda: Plan(Schedule(2, 1, terms=())), "sum of 1, got 0"),
        (lambda: Plan(Schedule(2, 1, 1, 2, terms=(Term(noise=(1,)),))), "expected 2 levels of 0 to 2"),
        (lambda: Plan(Schedule(2, 1, 1, 1, terms=(Term(label=(3,)),))), "expected 1 levels of 0 to 2"),
        (lambda: methods.swin_dpm(20, 3, 1), "multiple of the groups"),
        (lambda: methods.fifo(1, 4), "2 frames for lookahead"),
    ],
)
def test_numbers_that_cannot_be_used_say_what_to_change(make, says):
    with pytest.raises(InputError, match=says):
        make()
