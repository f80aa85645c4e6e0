"""The queue: runs the rows of a plan on a stream of latent frames, and hands frames out when they are clean.

    queue = Queue(Plan(schedule), table, model, shape=(1, 16, 60, 90), feed=feed, seed=0)
    queue.start()                    # or start(video), as the schedule's fill says
    while not queue.done:
        for frame in queue.run():    # frame.number, frame.latent (B, C, H, W)
            ...

The same seed, feed and model give the same bits, however the calls of a row are ordered or spread, and after a snapshot
was restored too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.engine.tensors import Shape
from worldrt.runtime.level_table import LevelTable
from worldrt.runtime.queue.conditions import Condition, Conditions, Feed
from worldrt.runtime.queue.evaluation import Evaluation, Models, noised
from worldrt.runtime.queue.noise import CounterNoise, Float32, Noise, Use
from worldrt.runtime.queue.slots import HostSlots, Precision
from worldrt.runtime.samplers import Float64
from worldrt.runtime.schedule.plan import Plan
from worldrt.runtime.schedule.rows import Call, Row

Array = np.ndarray[Any, Any]
Each = Callable[[Callable[[Call], Array], tuple[Call, ...]], Iterable[Array]]


@dataclass(frozen=True, eq=False)
class Latent:
    """A clean latent frame: its number from the start of the stream, and (B, C, ...) float32."""

    number: int
    latent: Float32


class Queue:
    """A stream of latent frames of `shape` (B, C, ...) under a plan.

    `model` is one for all guidance terms, one by the name of each term, or all together. `noise` stands in for the
    noise by counter of `seed`. `feed` gives the conditions; without one the stream has none and does not end. What a
    step gives is rounded to `precision`. Raises `InputError` where table and schedule count different steps, or a model
    is missing.
    """

    def __init__(
        self,
        plan: Plan,
        table: LevelTable,
        model: Models,
        shape: Shape,
        *,
        feed: Feed | None = None,
        seed: int = 0,
        noise: Noise | None = None,
        precision: Precision = "float32",
    ) -> None:
        schedule = plan.schedule
        if len(shape) < 3 or min(shape) < 1:
            raise InputError(f"frames of a queue: expected a shape (B, C, H, W) or (B, C, views, H, W), got {shape}")
        if table.top != schedule.steps:
            raise InputError(f"sampler: expected {schedule.steps} steps as in the schedule, got {table.top}")
        self.plan, self.schedule, self.table = plan, schedule, table
        self.shape, self.precision = shape, precision
        self.noise: Noise = noise or CounterNoise(seed, shape)
        self.feed = feed or (lambda frame: Condition(frame + schedule.given))
        places = schedule.history + schedule.slots
        self.evaluation = Evaluation(schedule, table, model, shape[0])
        self.slots = self.new_slots()
        self.conditions = Conditions(shape[0], places)
        self.levels = np.full(schedule.slots, schedule.steps, np.int64)
        self.knows_previous = np.zeros(schedule.slots, bool)  # which slots hold the x0 of the step before
        self.row_number = 0
        self.first = 0  # number of the frame in slot 0
        self.filled = 0  # slots that hold a frame, from 0 on
        self.leaving = 0  # the first slots, which were handed out, and leave before the next row
        self.end: int | None = None  # number of the first frame that is not to be, once that is known

    def new_slots(self) -> HostSlots:
        """Slots as this queue has them, empty."""
        return HostSlots(self.shape, self.schedule.history + self.schedule.slots, self.table, self.precision)

    def settle(self) -> None:
        """Have the slots be those that the levels tell of; to be called before they are looked at between two rows."""

    @property
    def done(self) -> bool:
        """Whether the stream has ended and all its frames were handed out."""
        return self.end is not None and self.first + self.leaving >= self.end

    def next_row(self) -> Row | None:
        """Bind the frames that enter before the next row, and give that row; None where the stream is done."""
        if self.schedule.fill != "cold" and not (self.filled or self.done):
            raise InputError(f"a schedule with fill '{self.schedule.fill}' begins with start(video)")
        if self.leaving and not self.done:
            self._shift()
        if not self.done:
            self._fill(0)
        if self.done:
            return None
        return self.plan.row(self.row_number, self.filled if self.schedule.drain == "shrink" else None)

    def start(self, video: Float32 | None = None) -> None:
        """Give the history and, to renoise, the frames that slots begin with: float32 (B, C, places, ...), clean,
        history first. A cold start takes none. Raises `InputError`."""
        s = self.schedule
        if self.row_number or self.filled:
            raise InputError("start: the stream has begun; make another queue for another one")
        known = s.given + (s.slots if s.fill == "renoise" else 0)
        expected = (*self.shape[:2], known, *self.shape[2:])
        got = None if video is None else video.shape
        if got != (expected if known else None):
            raise InputError(f"start of a schedule with fill '{s.fill}': expected {expected if known else None} latent "
                             f"frames (B, C, frames, ...), got {got}")  # fmt: skip
        for frame in range(-s.given, 0):
            condition = self.feed(frame)
            if condition is None:
                raise InputError("conditions: the given history needs a condition for each frame, got an end")
            self.conditions.bind(frame + s.history, condition)
        if s.fill == "renoise":
            self.levels[:] = self.plan.row(0).levels
        if video is not None:
            levels = (*(0 for _ in range(s.given)), *self.levels)[:known]
            for place, level in enumerate(levels, s.history - s.given):
                frame, clean = place - s.history, video[:, :, place - s.history + s.given]
                noise = self.noise(Use.START, (frame,), (level,), 0)[0]
                self.slots.put(place, noised(self.table, clean, noise, level))
        self._fill(known - s.given)

    def run(self, row: Row | None = None, each: Each = map) -> list[Latent]:
        """Run the next row; `row` stands for it where it was taken from the plan before. `each(evaluate, calls)` gives
        the x0 of the calls in their order, as `map` or the map of a thread pool does. Raises `InputError` for a row
        that does not follow the one before."""
        found = self.next_row()
        if found is None:
            return []
        row = row or found
        self._check(row)
        self.apply(row, each)
        self.row_number += 1
        self.leaving = row.advance
        end = self.first + row.advance if self.end is None else self.end
        numbers = range(max(self.first, self.schedule.discard), min(self.first + row.advance, end))
        return [Latent(n, self.slots.take(n - self.first + self.schedule.history)) for n in numbers]

    def apply(self, row: Row, each: Each = map) -> None:
        """Evaluate the calls of a row on the state before it, and commit what they write."""
        x0s = list(each(self._evaluate, row.calls))
        rows = self._coefficients(bool(row.advance))
        for call, x0 in zip(row.calls, x0s, strict=True):
            self._stage(call, rows[call.write_start : call.write_stop], x0)
        h = self.schedule.history
        for call in row.calls:
            self.slots.commit(call.write_start + h, call.write_stop + h)
            self.levels[call.write_start : call.write_stop] = call.to_level[call.written]
            self.knows_previous[call.write_start : call.write_stop] = self.table.needs_previous

    def rebind(self, frame: int, condition: Condition) -> None:
        """Replace the condition of a frame in flight. Raises `InputError` where it is below the commit level."""
        slot, lowest = frame - self.first, self.schedule.commits_at
        there = 0 <= slot < self.filled and (self.end is None or frame < self.end)
        if not there or self.levels[slot] < lowest:
            level = f"at level {self.levels[slot]}" if there else "not in the queue"
            raise InputError(f"frame {frame}: is {level}; its condition can be replaced from level {lowest} on")
        self.conditions.bind(slot + self.schedule.history, condition)

    def _fill(self, known: int) -> None:
        """Give each free slot a frame: its condition, and noise; the first `known` slots hold their latents already."""
        s = self.schedule
        while self.filled < s.slots:
            frame, place = self.first + self.filled, self.filled + s.history
            condition = self.feed(frame) if self.end is None else None
            if condition is None:
                self.end = frame if self.end is None else self.end
                if s.drain == "shrink" or self.done:
                    return
                self.conditions.repeat(place)
            else:
                self.conditions.bind(place, condition)
            if self.filled >= known:
                self._enter(place, frame)
            self.filled += 1

    def _enter(self, place: int, frame: int) -> None:
        """A place gets the noise that a frame begins with."""
        noise = self.noise(Use.START, (frame,), (self.schedule.steps,), 0)[0]
        self.slots.put(place, noise * np.float32(self.table.noise[self.schedule.steps]))

    def _check(self, row: Row) -> None:
        if row.levels != tuple(self.levels[: len(row.levels)].tolist()) or len(row.levels) > self.filled:
            raise InputError(f"row {self.row_number}: expected levels {self.levels.tolist()}, got {list(row.levels)}; "
                             "rows follow one another as the plan has them")  # fmt: skip

    def _evaluate(self, call: Call) -> Array:
        start, stop = call.start + self.schedule.history, call.stop + self.schedule.history

        def noise(slot: int, level: int) -> Float32:
            drawn: Float32 = self.noise(Use.HISTORY, (self.first + slot,), (level,), self.row_number)[0]
            return drawn

        return self.evaluation.x0(
            call, lambda: self.slots.window(start, stop), self.conditions.window(start, stop), noise
        )

    def _coefficients(self, cleaning: bool) -> Float64:
        """a, b, c, d of the next step of each slot (slots, 4)."""
        table, levels = self.table, self.levels
        if not table.needs_previous or (cleaning and table.first_when_clean):
            return table.first[levels]
        return np.where(self.knows_previous[:, None], table.steps[levels], table.first[levels])

    def _stage(self, call: Call, rows: Float64, x0: Array) -> None:
        noise = None
        if self.table.needs_noise and rows[:, 3].any():
            (places,) = rows[:, 3].nonzero()
            slots = call.write_start + places
            frames, levels = (self.first + slots).tolist(), self.levels[slots].tolist()
            noise = places, self.noise(Use.STEP, frames, levels, 0)
        h = self.schedule.history
        self.slots.stage(call.write_start + h, call.write_stop + h, x0[:, :, call.written], rows, noise)

    def _shift(self) -> None:
        """The oldest frames leave, and all others move up."""
        self.slots.shift(self.leaving)
        self._move(self.leaving)

    def _move(self, count: int) -> None:
        """All but the latents of frames that move up."""
        self.conditions.shift(count)
        for values, empty in ((self.levels, self.schedule.steps), (self.knows_previous, False)):
            values[:-count] = values[count:]
            values[-count:] = empty
        if self.table.forget_at_shift:
            self.knows_previous[:] = False
        self.first += count
        self.filled -= count
        self.leaving = 0
