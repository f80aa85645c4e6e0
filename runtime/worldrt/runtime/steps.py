"""One row of a sampler's table: evaluations and updates between fixed buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer
from worldrt.runtime.bound import ALL, LEVELS, BoundDenoiser
from worldrt.runtime.samplers import SamplerTable
from worldrt.runtime.updates import Rows, Update, bind_copy, bind_update

Renoise = Callable[[int], np.ndarray[Any, np.dtype[np.float32]]]


class Steps:
    """What the steps of one sampling run are made of. Level and coefficients of all rows are on the device from the
    start, and a step begins with two small copies into fixed places, so that all that follows can be one CUDA graph."""

    def __init__(self, bound: BoundDenoiser, table: SamplerTable, guidance: float, renoise: Renoise | None) -> None:
        self.bound, self.table, self.guidance = bound, table, guidance
        device, shape = bound.device, bound.x.shape
        self.frames = shape[2]
        places = [bound.inputs[name] for name in LEVELS if name in bound.inputs]
        self._levels = [Rows(device, place, _levels(table, place.shape)) for place in places]
        self._rows = self.rows("coefficients", table.coefficients)
        self.prev = bound.keep("previous", shape, "float32") if table.needs_previous else None
        if self.prev is not None:
            device.upload(self.prev, np.zeros(shape, np.float32))
        assert renoise is not None or not table.needs_noise
        self._renoise = renoise
        self._noise = bound.keep("noise", shape, "float32") if table.needs_noise else None
        self._twin = _twin(bound)
        self._updates = {True: self._bind(bound.uncond), False: self._bind(None)}
        self.key = (guidance, table.needs_previous, table.needs_noise)  # what a CUDA graph of a step depends on

    def rows(self, name: str, coefficients: np.ndarray[Any, Any]) -> Rows:
        """Rows (rows, 4) of coefficients with a place on the device: every frame of a clip takes the same step."""
        each = np.broadcast_to(coefficients[:, None], (len(coefficients), self.frames, 4))
        return Rows(self.bound.device, self.bound.keep(name, each.shape[1:], "float64"), each)

    def _bind(self, uncond: Buffer | None) -> Update:
        bound, x = self.bound, self.bound.x
        guidance = self.guidance if uncond is not None else 0.0
        return bind_update(
            bound.device,
            self._rows.place,
            x,
            bound.cond,
            uncond=uncond,
            guidance=guidance,
            prev=self.prev,
            noise=self._noise,
            out=x,
        )

    def step(self, index: int) -> None:
        """Row i of the table, with nothing left out."""
        self.begin(index)
        self.evaluate(guided=True)

    def begin(self, index: int) -> None:
        """Put level, coefficients and noise of a row in their places."""
        for levels in self._levels:
            levels.set(index)
        self._rows.set(index)
        if self._noise is not None and self._renoise is not None and self.table.coefficients[index, 3]:
            self.bound.device.upload(self._noise, self._renoise(index))

    def evaluate(self, *, guided: bool, part: slice = ALL, before: Update | None = None) -> None:
        """Evaluate with both texts or the prompt alone, and update. `part`: the calls that are still to be made;
        `before`: what is to be done ahead of the update."""

        def body() -> None:
            self.bound.run(guided=guided, part=part)
            if before is not None:
                before()
            self.update(guided=guided)

        self.bound.step((self.key, guided, part.start, before is not None), body)

    def update(self, *, guided: bool) -> None:
        """x takes the step that the predictions in their buffers say. Where both texts go through one call, the second
        state follows the first."""
        self._updates[guided]()
        if self._twin is not None:
            self._twin()


def _twin(bound: BoundDenoiser) -> Update | None:
    if bound.batch == bound.clips:
        return None
    return bind_copy(bound.device, bound.inputs["x"][bound.clips :], bound.x)


def _levels(table: SamplerTable, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    levels = table.levels.astype(np.float32).reshape(-1, *[1] * len(shape))
    return np.ascontiguousarray(np.broadcast_to(levels, (len(table), *shape)))
