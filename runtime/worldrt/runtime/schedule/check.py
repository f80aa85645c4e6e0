"""The invariants of a schedule, asserted on integers before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from worldrt.engine.errors import InputError
from worldrt.runtime.schedule.law import Schedule, Window
from worldrt.runtime.schedule.rows import Call, Row


def check(schedule: Schedule, steady: Sequence[Row], start: Sequence[Row]) -> None:
    """Raises `InputError` for windows or terms that cannot be used, or rows that break an invariant. `start` are the
    rows until the first group is clean, `steady` a period."""
    for window in schedule.windows:
        _check_window(schedule, window)
    _check_cover(schedule)
    _check_terms(schedule)
    for row in (*start, *steady):
        _check_row(schedule, row)
    _check_walk(schedule, [*start, *steady, *steady])
    if schedule.steps % schedule.shift == 0:
        shapes = {tuple((call.start, call.length) for call in row.calls) for row in steady}
        _require(len(shapes) == 1, "the calls of all steady rows must have the same sizes")


def _check_window(s: Schedule, window: Window) -> None:
    if not (-s.history <= window.start and window.length > 0 and window.stop <= s.slots):
        raise InputError(
            f"schedule: window of slots {window.start} to {window.stop - 1}: expected slots from {-s.history} (the "
            f"history) to {s.slots - 1} (the frames in flight); change its start or length, or the history"
        )
    if not max(window.start, 0) <= window.write_start < window.write_stop <= window.stop:
        raise InputError(
            f"schedule: window of slots {window.start} to {window.stop - 1}: expected it to write some of its own "
            f"slots from 0 on, got {window.write_start} to {window.write_stop - 1}; history is never written"
        )


def _check_cover(s: Schedule) -> None:
    """Each slot is written by one window."""
    at = 0
    for window in sorted(s.windows, key=lambda w: w.write_start):
        if window.write_start != at:
            problem = "written by two windows" if window.write_start < at else "written by no window"
            slot = min(window.write_start, at)
            raise InputError(f"schedule: slot {slot} is {problem}; make the write ranges meet")
        at = window.write_stop
    if at != s.slots:
        raise InputError(f"schedule: slot {at} is written by no window; the write ranges must reach {s.slots - 1}")


def _check_terms(s: Schedule) -> None:
    for term in s.terms:
        for name, levels in (("noise", term.noise), ("label", term.label)):
            if levels and (len(levels) != s.history or not all(0 <= level <= s.steps for level in levels)):
                raise InputError(
                    f"schedule: {name} of a guidance term: expected {s.history} levels of 0 to {s.steps}, one for "
                    f"each history slot, got {levels}"
                )
    total = math.fsum(term.weight for term in s.terms)
    if not abs(total - 1) < 1e-9:
        raise InputError(f"schedule: weights of the guidance terms: expected a sum of 1, got {total:g}")


def _check_row(s: Schedule, row: Row) -> None:
    """Levels fall on written slots alone, labels are true but for history, nothing in flight is noised again."""
    written: set[int] = set()
    for call in row.calls:
        own = range(max(call.start, 0), call.stop)
        past = call.length - len(own)
        levels = (0,) * past + tuple(row.levels[slot] for slot in own)
        slots = range(call.write_start, call.write_stop)
        for place, (level, to_level) in enumerate(zip(levels, call.to_level, strict=True)):
            drop = 1 if call.start + place in slots else 0
            _require(level - to_level == drop and level >= drop, "a write lowers the level by one, nothing else does")
        for branch in call.branches:
            _require(branch.read_label[past:] == levels[past:], "frames in flight are labelled with their own level")
            _require(not any(branch.renoise[past:]), "frames in flight are never noised again")
        _require(written.isdisjoint(slots), "the calls of a row write different slots")
        written.update(slots)
    _require(all(a <= b for a, b in pairwise(_after(row))), "levels never fall with the number of the frame")


def _check_walk(s: Schedule, rows: Sequence[Row]) -> None:
    """Rows follow one another: each begins with the levels that the one before left, frames leave when they are clean,
    and groups in flight stay as many."""
    levels = rows[0].levels
    for row in rows:
        _require(row.levels == levels, "each row begins where the one before ended")
        after = _after(row)
        leaving = sum(level == 0 for level in after)
        _require(row.advance == leaving and leaving in (0, s.group), "frames leave when they are clean, by groups")
        levels = (*after[leaving:], *(s.steps,) * leaving)


def _after(row: Row) -> tuple[int, ...]:
    levels = list(row.levels)
    for call in row.calls:
        _write(levels, call)
    return tuple(levels)


def _write(levels: list[int], call: Call) -> None:
    levels[call.write_start : call.write_stop] = call.to_level[call.written]


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise InputError(f"schedule: these numbers break a rule: {rule}; use a method of worldrt.runtime.schedule")
