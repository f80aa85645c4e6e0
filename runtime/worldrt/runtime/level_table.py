"""Samplers of frames at levels of their own: the rows of `samplers.py`, one for each level that a frame can be at.

A frame goes from level k to k - 1 by x' = a x + b x0 + c x0_prev + d noise, in float64. Level T is noise, 0 is clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.samplers import Float64, SamplerTable


@dataclass(frozen=True, eq=False)
class LevelTable:
    """A sampler for the levels 0 to T, which index every array.

    `labels` (T + 1,): what the model is shown at a level. `signal`, `noise` (T + 1,): a known frame is brought to a
    level by signal x + noise eps; a new one is noise[T] eps. `steps` (T + 1, 4): a, b, c, d from a level to the next
    lower one; row 0 is not used. `first` (T + 1, 4): the same for a frame without the x0 of the step before.

    Reset rule: with `forget_at_shift`, all frames lose that x0 when frames leave. With `first_when_clean`, all frames
    of a row take `first` where one of them becomes clean on it.
    """

    labels: Float64
    signal: Float64
    noise: Float64
    steps: Float64
    first: Float64
    forget_at_shift: bool = False
    first_when_clean: bool = False

    def __post_init__(self) -> None:
        count = len(self.labels)
        for name, shape in (("signal", (count,)), ("noise", (count,)), ("steps", (count, 4)), ("first", (count, 4))):
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise InputError(f"level table: {name}: expected finite numbers {shape}, got {array.shape}")
        if count < 2 or self.first[:, 2].any() or self.steps[-1, 2]:
            raise InputError("level table: expected a level or more, and no x0 before the first step (c = 0)")

    @property
    def top(self) -> int:
        """T, the number of steps a frame takes."""
        return len(self.labels) - 1

    @cached_property
    def needs_previous(self) -> bool:
        """Whether a step uses the x0 of the step before."""
        return bool(self.steps[1:, 2].any())

    @cached_property
    def needs_noise(self) -> bool:
        """Whether steps add fresh noise."""
        return bool(self.steps[1:, 3].any() or self.first[1:, 3].any())


def of_sampler(table: SamplerTable) -> LevelTable:
    """The rows of a sampler of `samplers.py`, whose levels are sigmas: a frame at sigma is x0 + sigma eps.

    A frame without the x0 of the step before takes a first-order step to the next sigma; after the last one it is x0.
    """
    sigmas = np.concatenate(([0.0], table.levels[::-1]))
    rows = np.concatenate((np.zeros((1, 4)), table.coefficients[::-1]))
    ratio = np.concatenate(([0.0], sigmas[:-1] / np.where(sigmas[1:] > 0, sigmas[1:], 1.0)))
    euler = np.stack((ratio, 1 - ratio, np.zeros_like(ratio), np.zeros_like(ratio)), axis=1)
    first = np.where(rows[:, 2:3] != 0, euler, rows)  # rows that take no x0 from before stay as they are
    return LevelTable(sigmas, np.ones_like(sigmas), sigmas, rows, first)


def flow_euler(steps: int, shift: float = 1.0, training_steps: int = 1000) -> LevelTable:
    """Euler steps of flow matching, where a frame at sigma is (1 - sigma) x0 + sigma eps; labels are sigma times
    `training_steps`. OpenDWM takes 24 steps and a shift of 3.

    The sigmas go evenly from 1 to that of the first training step, each moved by shift sigma / (1 + (shift - 1) sigma),
    and end at 0; the lower end is moved twice, as in diffusers' FlowMatchEulerDiscreteScheduler. With v = (x - x0) /
    sigma, x' = x + (sigma' - sigma) v. Esser et al., Scaling rectified flow transformers (2024), section 5.3.2.
    """
    if steps < 1 or training_steps < 1 or not shift > 0:
        raise InputError(f"flow steps: expected steps, training steps and a shift above 0, got {steps}, {shift}")

    def moved(sigma: Float64) -> Float64:
        return shift * sigma / (1 + (shift - 1) * sigma)

    lowest = moved(np.array(1 / training_steps))
    sigmas = np.concatenate(([0.0], moved(np.linspace(1.0, float(lowest), steps))[::-1]))
    ratio = np.concatenate(([0.0], sigmas[:-1] / sigmas[1:]))
    rows = np.stack((ratio, 1 - ratio, np.zeros_like(ratio), np.zeros_like(ratio)), axis=1)
    rows[0] = 0
    return LevelTable(sigmas * training_steps, 1 - sigmas, sigmas, rows, rows)
