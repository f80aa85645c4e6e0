"""Conditions are bound to frames, travel with them, can be late, and are never attached twice."""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.level_table import flow_euler
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.queue.state import snapshot
from worldrt.runtime.samplers_vp import phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.schedule.plan import Plan

SHAPE = (1, 1, 1, 1)


class Seen:
    """A model that keeps the number of the condition of each frame of each call, with the frame's level."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, x, level, conditions):
        self.calls.append((level[0].tolist(), conditions["number"][0].tolist()))
        return x


def numbered(sequence, value=None):
    return Condition(sequence, {"number": np.float32(sequence if value is None else value)})


def opened(schedule, feed=numbered, **options):
    model = Seen()
    return Queue(Plan(schedule), flow_euler(schedule.steps), model, SHAPE, feed=feed, **options), model


def test_each_frame_keeps_its_condition_until_it_leaves():
    queue, model = opened(methods.opendwm(4, 2))
    frames = [frame.number for _ in range(12) for frame in queue.run()]
    assert frames == [0, 1, 2, 3, 4]
    assert [numbers for _, numbers in model.calls[::2]] == [[0, 1], [0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]


def test_history_keeps_its_conditions_too():
    schedule = methods.swin_dpm(4, 4, 1)
    queue, model = opened(schedule, lambda frame: numbered(frame + 1))
    queue.start(np.zeros((1, 1, 5, 1, 1), np.float32))
    for _ in range(3):
        queue.run()
    assert [numbers for _, numbers in model.calls] == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]


def test_a_condition_is_asked_for_just_before_the_row_that_shows_it():
    asked = []

    def feed(frame):
        asked.append((frame, len(model.calls)))
        return numbered(frame)

    queue, model = opened(methods.opendwm(4, 2), feed)
    for _ in range(8):
        queue.run()
    assert asked == [(0, 0), (1, 0), (2, 4), (3, 6)]


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_a_number_that_is_not_the_next_is_refused(wrong):
    queue, _ = opened(Schedule(2, 1), lambda frame: numbered(frame if frame < 2 else wrong))
    with pytest.raises(InputError, match=f"condition number {wrong}: expected 2; each is attached once"):
        for _ in range(5):
            queue.run()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, r"expected \['number'\], got \[\]"),
        ({"other": np.float32(1)}, "other"),
        ({"number": np.zeros(2, np.float32)}, r"number: expected float32 \(\)"),
        ({"number": np.float64(1)}, "got float64"),
    ],
)
def test_a_condition_keeps_names_shapes_and_dtypes(values, says):
    queue, _ = opened(methods.opendwm(4, 2))
    queue.run()
    before = snapshot(queue)
    with pytest.raises(InputError, match=says):
        queue.rebind(1, Condition(2, values))
    assert all(np.array_equal(array, snapshot(queue)[name]) for name, array in before.items())


def test_a_late_condition_is_taken_down_to_the_commit_level():
    queue, model = opened(replace(methods.opendwm(6, 2), commit_level=4))
    for _ in range(7):
        queue.run()
    # levels are now 1, 3, 5 of frames 1, 2, 3
    queue.rebind(3, numbered(4, 40))
    queue.run()
    assert model.calls[-1][1] == [1, 2, 40]
    for frame, says in ((2, "level 2"), (0, "not in the queue"), (4, "not in the queue"), (1, "level 0")):
        with pytest.raises(InputError, match=f"frame {frame}: is .*{says}.*from level 4 on"):
            queue.rebind(frame, numbered(5))
    queue.rebind(3, numbered(5, 50))
    assert queue.conditions.sequences.tolist() == [1, 2, 5]


def test_a_waiting_frame_takes_late_conditions_until_its_first_row():
    """Without a commit level, a frame of a cold start can be changed while it waits, and not after."""
    queue, model = opened(methods.opendwm(6, 2))
    queue.run()
    queue.rebind(2, numbered(3, 30))
    for _ in range(4):
        queue.run()
    assert model.calls[-1][1] == [0, 1, 30]
    with pytest.raises(InputError, match="frame 2: is at level 5"):
        queue.rebind(2, numbered(4))


def test_clips_of_a_batch_have_conditions_of_their_own():
    feed = lambda frame: Condition(frame, {"number": np.array([frame, -frame], np.float32)})  # noqa: E731
    seen = []

    def model(x, level, conditions):
        seen.append(conditions["number"].tolist())
        return x

    queue = Queue(Plan(Schedule(2, 1)), flow_euler(2), model, (2, 1, 1), feed=feed)
    for _ in range(3):
        queue.run()
    assert seen[-1] == [[1, 2], [-1, -2]]


def test_frames_beyond_the_end_repeat_the_last_condition_and_never_leave():
    queue, model = opened(Schedule(4, 1), lambda frame: numbered(frame) if frame < 6 else None)
    left = []
    while not queue.done:
        left += [frame.number for frame in queue.run()]
        if queue.first == 4:
            with pytest.raises(InputError, match="frame 6: is not in the queue"):
                queue.rebind(6, numbered(6))
    assert left == [0, 1, 2, 3, 4, 5]
    assert model.calls[-1][1] == [5, 5, 5, 5]
    assert queue.conditions.next == 6


def test_a_hundred_thousand_rows_keep_no_more_than_a_few():
    """A million frames of groups of ten: the state, the rows and the tables stay as large as they were."""
    schedule = methods.swin_dpm(4, 4, 10)
    still = np.zeros((1, 1, 1, 1), np.float32)
    queue = Queue(
        Plan(schedule),
        phased_ddim(4, 4),
        lambda x, level, conditions: x,
        (1, 1, 1),
        feed=lambda frame: Condition(frame + 1, {"number": np.float32(frame)}),
        noise=lambda use, frames, levels, row: still,
    )
    queue.start(np.zeros((1, 1, 41, 1), np.float32))

    def kept():
        arrays = sum(array.nbytes for array in snapshot(queue).values())
        held = queue.plan._made, queue.slots._parts, queue.evaluation._labels, queue.conditions.values
        return arrays, [len(found) for found in held]

    def run(rows):
        return sum(len(queue.run()) for _ in range(rows))

    emitted = run(2_000)
    before, memory = kept(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    emitted += run(98_000)
    assert emitted == 1_000_000 and queue.first + queue.leaving == 1_000_000
    assert kept() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 4_000  # KiB
