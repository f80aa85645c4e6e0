"""A queue whose latents stay on a GPU: a row is work of the GPU's stream, and one CUDA graph where it has one window.

    windows = Windows(device, bind)                # bind(frames) gives a bound denoiser
    queue = DeviceQueue(plan, table, windows, shape, text=lambda: (cond, uncond), feed=feed, seed=0)

Rows are those of `Queue`, to the bit where the model is the same: the shift with the noise that enters, the model, the
noise of the step and the step itself. What crosses from the host is what it has not sent before (a control that is new;
levels and coefficients of a row that is new), and the numbers of frames once in some thousand rows; back come clean
latents. Noise is made where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.engine.tensors import Shape
from worldrt.runtime.bound import LEVELS, BoundDenoiser
from worldrt.runtime.level_table import LevelTable
from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.device_slots import Alone, DeviceSlots, Windows
from worldrt.runtime.queue.noise import CounterNoise, Float32, Use, counters
from worldrt.runtime.queue.queue import Each, Latent, Queue
from worldrt.runtime.samplers import Float64
from worldrt.runtime.schedule.plan import Plan
from worldrt.runtime.schedule.rows import Call, Row
from worldrt.runtime.updates import check_kernels

Array = np.ndarray[Any, Any]
Texts = Callable[[], "tuple[Float32, Float32 | None]"]
COUNTED = 4096
"""Numbers of frames that are sent at a time."""


class DeviceQueue(Queue):
    """`Queue` on a GPU. `windows` give the denoiser with all inputs in place but x, levels, texts and what frames
    bring; `text` the rows of the prompt and, with guidance, those of no prompt. `alone` is held while the device
    is used.

    Raises `InputError` for guidance other than by a prompt scale, and `BackendError` without the CUDA kernels.
    """

    def __init__(
        self,
        plan: Plan,
        table: LevelTable,
        windows: Windows,
        shape: Shape,
        *,
        text: Texts,
        feed: Feed | None = None,
        seed: int = 0,
        alone: Alone | None = None,
    ) -> None:
        device = windows.device
        check_kernels(device)
        self._windows, self._text, self._placed = windows, text, windows.placed
        self._alone = nullcontext() if alone is None else alone
        self._pending = 0  # frames that leave before the next row
        names = {term.model for term in plan.schedule.terms}
        super().__init__(plan, table, dict.fromkeys(names, _nowhere), shape, feed=feed, seed=seed)
        self._guidance = self._scale()
        slots = plan.schedule.slots
        self._first = device.empty((1,), "int64")
        self._counters = device.empty((slots, 4), "int64")
        self._entering = device.empty((plan.schedule.group, 4), "int64")
        self._numbers = device.empty((COUNTED, 1), "int64")

    slots: DeviceSlots  # type: ignore[assignment]  # the same places; what is done on them is given to a stream

    def new_slots(self) -> DeviceSlots:  # type: ignore[override]
        places = self.schedule.history + self.schedule.slots
        assert isinstance(self.noise, CounterNoise)
        return DeviceSlots(self._windows.device, self.shape, places, self.table, self.noise.seed, self._alone)

    def start(self, video: Float32 | None = None) -> None:
        with self._alone:
            super().start(video)

    def run(self, row: Row | None = None, each: Each = map) -> list[Latent]:
        with self._alone:
            return super().run(row, each)

    def settle(self) -> None:
        """Do what waits for the next row, so that the slots are those of the levels."""
        if self._pending:
            with self._alone:
                self._number()
                self._shift_slots()

    def apply(self, row: Row, each: Each = map) -> None:
        """As `Queue.apply`; the calls of a row follow one another."""
        rows = self._coefficients(bool(row.advance))
        self._number()
        noisy = self.table.needs_noise and bool(rows[:, 3].any())
        if noisy:
            used = np.where(rows[:, 3] != 0, int(Use.STEP), -1)
            table = counters(Use.STEP, range(len(rows)), self.levels.tolist(), 0)
            table[:, 0] = used
            self._placed.put(self._counters, table)
        for index, call in enumerate(row.calls):
            self._run(call, rows[call.write_start : call.write_stop], noisy and index == 0, len(row.calls) == 1)
        for call in row.calls:
            h = self.schedule.history
            if len(row.calls) > 1:
                self.slots.commit(call.write_start + h, call.write_stop + h)
            self.levels[call.write_start : call.write_stop] = call.to_level[call.written]
            self.knows_previous[call.write_start : call.write_stop] = self.table.needs_previous

    def _run(self, call: Call, rows: Float64, noisy: bool, alone: bool) -> None:
        """One call: with what waits for the row in front of the first one, as one CUDA graph."""
        bound, h = self._window(call), self.schedule.history
        step = self.slots.step(call.start + h, call.write_start + h, call.write_stop + h, bound, self._guidance, alone)
        self._placed.put(step.rows, rows)
        shifted, self._pending = self._pending, 0

        def body() -> None:
            if shifted:
                self._shift_slots(shifted)
            step.gather()
            bound.run()
            if noisy:
                self.slots.draw(self._counters, self._first)
            step.update()

        bound.step((self.slots, call.start, call.write_start, call.write_stop, shifted, noisy, alone), body)

    def _window(self, call: Call) -> BoundDenoiser:
        """The denoiser of a window with levels, conditions and texts in place."""
        bound = self._windows.of(call.length, self._text())
        if any(any(branch.renoise) for branch in call.branches):
            raise InputError("guidance by history: a queue on a GPU has none; use --device cpu")
        label = self.table.labels[list(call.branches[0].read_label)].astype(np.float32)[None]
        h = self.schedule.history
        given: Mapping[str, Array] = dict(zip(LEVELS, (label, label[:, -1:]), strict=True))
        for name, values in {**given, **self.conditions.window(call.start + h, call.stop + h)}.items():
            if name in bound.inputs:
                self._placed.put(bound.inputs[name], values.astype(np.float32, copy=False))
        return bound

    def _shift(self) -> None:
        self._pending = self.leaving
        count, self.leaving = self.leaving, 0
        self._move(count)

    def _enter(self, place: int, frame: int) -> None:
        if not self._pending:  # else it comes with the shift
            super()._enter(place, frame)

    def _shift_slots(self, count: int | None = None) -> None:
        count = self._pending if count is None else count
        self.slots.shift_in(count, self._entering[0:count], self._first)
        self._pending = 0

    def _number(self) -> None:
        """Have the number of the first frame, and the counters of those that enter, on the device."""
        base = self.first - self.first % COUNTED
        self._placed.send(self._numbers, base, lambda: np.arange(base, base + COUNTED)[:, None])
        at = self.first - base
        self._placed.copy(self._first, self._numbers[at : at + 1].reshape((1,)), self.first)
        s = self.schedule
        self.slots.prepare_shift(float(self.table.noise[s.steps]))
        entering = range(s.slots - s.group, s.slots)
        self._placed.put(self._entering, counters(Use.START, entering, [s.steps] * s.group, 0))

    def _scale(self) -> float:
        """g of x0 + g (x0 - uncond); 0 without guidance."""
        terms = self.schedule.terms
        names = [term.model for term in terms]
        if len(terms) == 1 and terms[0].weight == 1 and not terms[0].noise:
            return 0.0
        if names != ["cond", "uncond"] or abs(sum(term.weight for term in terms) - 1) > 1e-9:
            raise InputError(f"guidance of a queue on a GPU: expected a prompt scale, got terms {names}")
        return terms[0].weight - 1


def _nowhere(x: Float32, level: Float32, conditions: Mapping[str, Array]) -> Array:
    raise AssertionError("a queue on a GPU evaluates its bound denoiser")
