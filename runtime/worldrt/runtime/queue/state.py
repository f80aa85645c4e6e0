"""The state of a queue as plain arrays by name, as safetensors takes them: kept, put back, branched.

The noise is no part of it: a queue that takes a state wants the plan, table and seed of the one that gave it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.queue.conditions import Conditions, Feed
from worldrt.runtime.queue.queue import Queue

Array = np.ndarray[Any, Any]
_VALUE = "condition."
_ENDLESS = -1


def snapshot(queue: Queue) -> dict[str, Array]:
    """Copies of everything that the next rows depend on."""
    end = _ENDLESS if queue.end is None else queue.end
    counters = (queue.row_number, queue.first, queue.filled, queue.leaving, end, queue.conditions.next)
    arrays = _arrays(queue) | {"counters": np.array(counters, np.int64), "schedule": _numbers(queue)}
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def restore(queue: Queue, state: Mapping[str, Array]) -> None:
    """Put a snapshot back. The feed is asked for the frames after those of the snapshot next. Raises `InputError`, and
    changes nothing, where the state is of another queue."""
    values = {name: state[name] for name in state if name.startswith(_VALUE)}
    targets = {name: array for name, array in _arrays(queue).items() if not name.startswith(_VALUE)}
    missing = {*targets, "counters", "schedule"} - state.keys()
    if missing:
        raise InputError(f"state of a queue: expected {', '.join(sorted(missing))} too")
    if state["schedule"].tolist() != _numbers(queue).tolist():
        raise InputError(
            f"state of a queue: expected steps, shift, group, history and batch {_numbers(queue).tolist()}, got "
            f"{state['schedule'].tolist()}; restore it under the plan that it was taken from"
        )
    for name, target in targets.items():
        _require(name, state[name], target.shape, target.dtype)
    _require("counters", state["counters"], (6,), np.dtype(np.int64))
    _check_ranges(queue, state["counters"], state["levels"])
    for name, array in values.items():
        _require(name, array, (*queue.conditions.shape, *array.shape[2:]), array.dtype)
    for name, target in targets.items():
        target[...] = state[name]
    queue.slots.restore(state)
    queue.conditions.values = {name.removeprefix(_VALUE): np.array(array) for name, array in values.items()}
    counters = state["counters"].tolist()
    queue.row_number, queue.first, queue.filled, queue.leaving, end, queue.conditions.next = counters
    queue.end = None if end == _ENDLESS else end


def branch(queue: Queue, feed: Feed) -> Queue:
    """Another queue in the same state, with the same model and noise, and conditions of its own from here on."""
    other = copy(queue)
    places = queue.schedule.history + queue.schedule.slots
    other.slots = queue.new_slots()
    other.conditions = Conditions(queue.shape[0], places)
    other.levels, other.knows_previous = queue.levels.copy(), queue.knows_previous.copy()
    other.feed = feed
    restore(other, snapshot(queue))
    return other


def _arrays(queue: Queue) -> dict[str, Array]:
    queue.settle()
    return {
        **queue.slots.state(),
        "levels": queue.levels,
        "knows_previous": queue.knows_previous,
        "sequences": queue.conditions.sequences,
        **{_VALUE + name: array for name, array in queue.conditions.values.items()},
    }


def _numbers(queue: Queue) -> Array:
    s = queue.schedule
    return np.array((s.steps, s.shift, s.group, s.history, queue.shape[0]), np.int64)


def _check_ranges(queue: Queue, counters: Array, levels: Array) -> None:
    s = queue.schedule
    row, first, filled, leaving, end, following = counters.tolist()
    sound = 0 <= leaving <= filled <= s.slots and min(row, first, following) >= 0 and end >= _ENDLESS
    if not sound or levels.min() < 0 or levels.max() > s.steps:
        raise InputError("state of a queue: counters or levels are out of range; the file is damaged")


def _require(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"state of a queue: {name}: expected {dtype} {shape}, got {array.dtype} {array.shape}; it is of another one"
        )
