"""The latents of a queue on the host: fixed buffers, the same steps that device buffers would take.

A place is a slot counted from the oldest history frame. All arrays are float32 (B, C, places, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from worldrt.engine.tensors import Shape
from worldrt.kernels import MultistepUpdate
from worldrt.runtime.level_table import LevelTable
from worldrt.runtime.queue.noise import Float32

Precision = Literal["float32", "float16"]


class _Part(NamedTuple):
    """Some written places: views of the buffers, and the update that is bound to them."""

    x0: Float32
    noise: Float32
    staged: Float32
    latents: Float32
    update: MultistepUpdate


class HostSlots:
    """Latents, their x0 of the step before, and room for what a row writes before it is committed. What a step gives
    is rounded to `precision`."""

    def __init__(self, shape: Shape, places: int, table: LevelTable, precision: Precision = "float32") -> None:
        self._precision = np.dtype(precision)
        batch, channels, *rest = shape
        whole = (batch, channels, places, *rest)
        self.latents, self._staged, self._x0 = (np.zeros(whole, np.float32) for _ in range(3))
        self.previous = np.zeros(whole if table.needs_previous else 0, np.float32)
        self._noise = np.zeros(whole if table.needs_noise else 0, np.float32)
        self._parts: dict[tuple[int, int], _Part] = {}

    def window(self, start: int, stop: int) -> Float32:
        """A fresh contiguous copy of some places."""
        return np.array(self.latents[:, :, start:stop], order="C")

    def put(self, place: int, latent: Float32) -> None:
        """Write one place (B, C, ...)."""
        self.latents[:, :, place] = latent

    def take(self, place: int) -> Float32:
        """A fresh copy of one place."""
        return np.array(self.latents[:, :, place], order="C")

    def state(self) -> dict[str, Float32]:
        """What the next rows depend on."""
        return {"latents": self.latents, "previous": self.previous}

    def restore(self, state: Mapping[str, Float32]) -> None:
        """Put that back."""
        for name, array in self.state().items():
            array[...] = state[name]

    def stage(self, start: int, stop: int, x0: Any, rows: Any, noise: tuple[Any, Float32] | None) -> None:
        """Compute the step of some places: x0 (B, C, n, ...), rows (n, 4) of coefficients, and the places of 0 to n - 1
        that the sampler adds noise to, with it (k, B, C, ...). `window` does not see it before `commit`."""
        part = self._part(start, stop)
        part.x0[...] = x0
        if noise is not None:
            places, values = noise
            part.noise[:, :, places] = np.moveaxis(values, 0, 2)
        part.update(rows)

    def commit(self, start: int, stop: int) -> None:
        """Make a staged step the state."""
        part = self._part(start, stop)
        part.latents[...] = part.staged.astype(self._precision, copy=False)

    def shift(self, count: int) -> None:
        """The first `count` places leave; the last ones become zeros."""
        for array in (self.latents, self.previous):
            if array.size:
                array[:, :, :-count] = array[:, :, count:]
                array[:, :, -count:] = 0

    def _part(self, start: int, stop: int) -> _Part:
        """Bound once for each range of places; a plan has few."""
        key = (start, stop)
        if key not in self._parts:

            def view(array: Float32) -> Float32:
                return array[:, :, start:stop] if array.size else array

            latents, x0, noise, staged = map(view, (self.latents, self._x0, self._noise, self._staged))
            previous = view(self.previous) if self.previous.size else None
            update = MultistepUpdate(
                latents,
                x0,
                prev=previous,
                noise=noise if noise.size else None,
                out=staged,
                guided_out=previous,
            )
            self._parts[key] = _Part(x0, noise, staged, latents, update)
        return self._parts[key]
