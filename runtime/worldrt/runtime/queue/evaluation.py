"""A model seen through a call: the branches of guidance, labels, and noise on the history for one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Asked:
    """What a branch wants evaluated: the name of its model, x (B, C, F, ...) and level (B, F)."""

    model: str
    x: Float32
    level: Float32


@dataclass(frozen=True)
class Jointly:
    """Models that are asked for all branches of a call at once. `x0s` gives theirs in order, `conditions` being those
    of a `Model`; `names` are the models that it knows."""

    names: Collection[str]
    x0s: Callable[[Sequence[Asked], Mapping[str, Array]], Sequence[Array]]


Models = Model | Mapping[str, Model] | Jointly
"""One model for all guidance terms, one by the name of each, or all together."""


class Evaluation:
    """The models of a queue, by the names of the guidance terms. Raises `InputError` where one is missing."""

    def __init__(self, schedule: Schedule, table: LevelTable, model: Models, batch: int) -> None:
        names = {term.model for term in schedule.terms}
        self._models = model if isinstance(model, Jointly) else _one_by_one(model, names)
        if not names <= set(self._models.names):
            raise InputError(f"guidance: expected models for {sorted(names)}, got {sorted(self._models.names)}")
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
        plain = window()
        asked = []
        for branch in call.branches:
            x = plain
            if any(branch.renoise):
                x = plain.copy()
                for place, level in enumerate(branch.renoise):
                    if level:
                        x[:, :, place] = noised(self._table, x[:, :, place], noise(call.start + place, level), level)
            asked.append(Asked(branch.model, x, self._label(branch)))
        x0s = self._models.x0s(asked, conditions)
        for one, x0 in zip(asked, x0s, strict=True):
            if x0.shape != one.x.shape:
                raise ShapeError(f"model of the queue: expected x0 {one.x.shape}, the shape of x, got {x0.shape}")
        weights = [branch.weight for branch in call.branches]
        if weights == [1]:
            return x0s[0]
        total: Float64 = np.zeros(x0s[0].shape)
        for weight, x0 in zip(weights, x0s, strict=True):
            total += weight * x0.astype(np.float64)
        return total.astype(np.float32)

    def _label(self, branch: Branch) -> Float32:
        """(B, F) float32, made once for each row of a plan."""
        levels = branch.read_label
        if levels not in self._labels:
            row = self._table.labels[list(levels)].astype(np.float32)
            self._labels[levels] = np.ascontiguousarray(np.broadcast_to(row, (self._batch, len(levels))))
        return self._labels[levels]


def _one_by_one(model: Model | Mapping[str, Model], names: Collection[str]) -> Jointly:
    models = dict(model) if isinstance(model, Mapping) else dict.fromkeys(names, model)

    def x0s(asked: Sequence[Asked], conditions: Mapping[str, Array]) -> list[Array]:
        return [models[one.model](one.x, one.level, conditions) for one in asked]

    return Jointly(models.keys(), x0s)


def noised(table: LevelTable, clean: Float32, noise: Float32, level: int) -> Float32:
    """A known frame at a level, in float64, rounded once."""
    at: Float64 = table.signal[level] * clean.astype(np.float64) + table.noise[level] * noise.astype(np.float64)
    return at.astype(np.float32)
