"""Conditions of frames: bound to a slot when its frame comes, moving with it, each number attached once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError

Array = np.ndarray[Any, Any]
UNBOUND = -1


@dataclass(frozen=True, eq=False)
class Condition:
    """What one frame is conditioned on. `sequence` counts 0, 1, 2, ... over a stream. A value is (...) for all clips of
    the batch, or (B, ...) with a row for each; names, shapes and dtypes stay those of the first condition."""

    sequence: int
    values: Mapping[str, Array] = field(default_factory=dict)


Feed = Callable[[int], "Condition | None"]
"""Gives the condition of a frame, once for each in ascending order; given history has the frames -h to -1. None ends
the stream before that frame."""


class Conditions:
    """The conditions of all slots, as arrays (B, slots, ...) by name."""

    def __init__(self, batch: int, slots: int) -> None:
        self._batch, self._slots = batch, slots
        self.next = 0
        self.sequences = np.full(slots, UNBOUND, np.int64)
        self.values: dict[str, Array] = {}
        self._windows: dict[tuple[int, int], dict[str, Array]] = {}
        self._windows_of: dict[str, Array] = self.values

    @property
    def shape(self) -> tuple[int, int]:
        """(B, slots), which all values begin with."""
        return self._batch, self._slots

    def bind(self, slot: int, condition: Condition) -> None:
        """Attach a condition to a slot, in place of what it has. Raises `InputError` for a number that is not the next
        one, or values that are not like those before."""
        if condition.sequence != self.next:
            raise InputError(f"condition number {condition.sequence}: expected {self.next}; each is attached once")
        if self.next == 0:
            self.values = {name: self._room(np.asarray(value)) for name, value in condition.values.items()}
        if condition.values.keys() != self.values.keys():
            raise InputError(f"condition {self.next}: expected {sorted(self.values)}, got {sorted(condition.values)}")
        arrays = {name: np.asarray(value) for name, value in condition.values.items()}
        for name, value in arrays.items():
            self._check(name, value)
        for name, value in arrays.items():
            self.values[name][:, slot] = value
        self.sequences[slot] = self.next
        self.next += 1
        self._windows.clear()

    def repeat(self, slot: int) -> None:
        """Give a slot the values of the one before it, without a number of its own."""
        for values in self.values.values():
            values[:, slot] = values[:, slot - 1]
        self.sequences[slot] = UNBOUND
        self._windows.clear()

    def window(self, start: int, stop: int) -> dict[str, Array]:
        """Values (B, F, ...) of some slots, by name, the same arrays until they change. Do not write into them."""
        if self._windows_of is not self.values:  # others were put in their place
            self._windows, self._windows_of = {}, self.values
        if (start, stop) not in self._windows:
            made = {name: np.array(values[:, start:stop], order="C") for name, values in self.values.items()}
            self._windows[start, stop] = made
        return self._windows[start, stop]

    def shift(self, count: int) -> None:
        """The first `count` slots leave, the last ones become free."""
        self.sequences[:-count] = self.sequences[count:]
        self.sequences[-count:] = UNBOUND
        for values in self.values.values():
            values[:, :-count] = values[:, count:]
        self._windows.clear()

    def _room(self, value: Array) -> Array:
        each = value.shape[1:] if value.ndim and value.shape[0] == self._batch > 1 else value.shape
        return np.zeros((self._batch, self._slots, *each), value.dtype)

    def _check(self, name: str, value: Array) -> None:
        of_all = self.values[name]
        each = of_all.shape[2:]
        if value.dtype != of_all.dtype or value.shape not in (each, (self._batch, *each)):
            raise InputError(
                f"condition {self.next}: {name}: expected {of_all.dtype} {each}, got {value.dtype} {value.shape}; "
                "a stream keeps the shapes it began with"
            )
