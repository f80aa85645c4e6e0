"""The rows of a schedule: made when they are asked for, kept once made, the same objects in every period."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from worldrt.runtime.schedule.check import check
from worldrt.runtime.schedule.guidance import branches
from worldrt.runtime.schedule.law import Schedule, Window
from worldrt.runtime.schedule.rows import Call, Row


class Plan:
    """A checked schedule. Memory does not grow with the stream: at most the rows of a fill, a period and a drain are
    kept. Raises `InputError` where the schedule breaks a rule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._made: dict[tuple[int, int, int], Row] = {}
        check(schedule, self.steady, [self.row(m) for m in range(schedule.rows_to_first)])

    @property
    def steady(self) -> tuple[Row, ...]:
        """The rows that repeat: one period."""
        return tuple(self._row(i, self.schedule.history, self.schedule.slots) for i in range(self.schedule.shift))

    def row(self, number: int, slots: int | None = None) -> Row:
        """A row by its number from the start of the stream. `slots`: how many frames are in flight, where it is fewer
        because the stream ends."""
        s = self.schedule
        shifts, inner = divmod(number - s.rows_to_first, s.shift)
        if shifts < 0:
            shifts, inner = -1, number - s.rows_to_first + s.shift
        history = min(s.history, s.given + (shifts + 1) * s.group)
        return self._row(inner, history, s.slots if slots is None else min(slots, s.slots))

    def rows(self, frames: int | None = None) -> Iterator[Row]:
        """The rows of a stream of so many frames, or of one without end."""
        s = self.schedule
        emitted = 0
        for number in count():
            left = s.slots if frames is None else frames - emitted
            if left <= 0:
                return
            row = self.row(number, None if s.drain == "pad" else left)
            emitted += row.advance
            yield row

    def _row(self, inner: int, history: int, slots: int) -> Row:
        """Row `inner` of a shift, which is negative while a cold start fills the queue, with so much history."""
        key = (inner, history, slots)
        if key not in self._made:
            s = self.schedule
            raw = [(slot // s.group + 1) * s.shift - inner for slot in range(slots)]
            levels = tuple(min(level, s.steps) for level in raw)
            active = sum(level <= s.steps for level in raw)  # the others wait for their first row
            calls = (self._call(window, levels, active, history) for window in s.windows)
            advance = min(s.group, slots) if inner == s.shift - 1 else 0
            self._made[key] = Row(levels, tuple(call for call in calls if call), advance)
        return self._made[key]

    def _call(self, window: Window, levels: tuple[int, ...], active: int, history: int) -> Call | None:
        """A window cut to what there is, or None where it would write nothing."""
        start, stop = max(window.start, -history), min(window.stop, len(levels))
        first, last = window.write_start, min(window.write_stop, active)
        if first >= last:
            return None
        own = levels[max(start, 0) : stop]
        past = max(0, -start)
        to_level = [level - (first <= slot < last) for slot, level in enumerate(own, max(start, 0))]
        parts = branches(self.schedule, past, own)
        return Call(start, stop - start, first, last, (0,) * past + tuple(to_level), parts)
