"""A model seen through a call: the branches of guidance, labels, and noise on the history for one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError, ShapeError
from worldrt.runtime.level_table import LevelTable
from worldrt.runtime.queue.noise import Float32
from worldrt.runtime.samplers import Float64
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.schedule.rows import Branch, Call

Array = np.ndarray[Any, Any]
Model = Callable[[Float32, Float32, Mapping[str, Array]], Array]
"""x0 (B, C, F, ...) of x (B, C, F, ...), level (B, F) float32, and the conditions (B, F, ...) of the frames by name."""


class Evaluation:
    """The models of a queue, by the names of the guidance terms. Raises `InputError` where one is missing."""

    def __init__(self, schedule: Schedule, table: LevelTable, model: Model | Mapping[str, Model], batch: int) -> None:
        names = {term.model for term in schedule.terms}
        self._models = dict(model) if isinstance(model, Mapping) else dict.fromkeys(names, model)
        if not names <= self._models.keys():
            raise InputError(f"guidance: expected models for {sorted(names)}, got {sorted(self._models)}")
        self._table, self._batch = table, batch
        self._labels: dict[tuple[int, ...], Float32] = {}

    def x0(
        self,
        call: Call,
        window: Callable[[], Float32],
        conditions: Mapping[str, Array],
        noise: Callable[[int, int], Float32],
    ) -> Array:
        """The prediction of a call: x0 of its branches, weighted and summed in float64 where there are several.
        `window` gives a fresh copy of the latents, `noise(slot, level)` that of a history slot."""
        parts = []
        for branch in call.branches:
            x = window()
            for place, level in enumerate(branch.renoise):
                if level:
                    x[:, :, place] = noised(self._table, x[:, :, place], noise(call.start + place, level), level)
            x0 = self._models[branch.model](x, self._label(branch), conditions)
            if x0.shape != x.shape:
                raise ShapeError(f"model of the queue: expected x0 {x.shape}, the shape of x, got {x0.shape}")
            parts.append((branch.weight, x0))
        if len(parts) == 1 and parts[0][0] == 1:
            return parts[0][1]
        total: Float64 = np.zeros(parts[0][1].shape)
        for weight, x0 in parts:
            total += weight * x0.astype(np.float64)
        return total.astype(np.float32)

    def _label(self, branch: Branch) -> Float32:
        """(B, F) float32, made once for each row of a plan."""
        levels = branch.read_label
        if levels not in self._labels:
            row = self._table.labels[list(levels)].astype(np.float32)
            self._labels[levels] = np.ascontiguousarray(np.broadcast_to(row, (self._batch, len(levels))))
        return self._labels[levels]


def noised(table: LevelTable, clean: Float32, noise: Float32, level: int) -> Float32:
    """A known frame at a level, in float64, rounded once."""
    at: Float64 = table.signal[level] * clean.astype(np.float64) + table.noise[level] * noise.astype(np.float64)
    return at.astype(np.float32)
