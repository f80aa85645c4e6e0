"""The sampling loop: bind a level, evaluate, update, in place, row after row of a sampler's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.samplers import SamplerTable
from worldrt.runtime.shortcuts import Shortcuts
from worldrt.runtime.skipping import Skipping
from worldrt.runtime.steps import Renoise, Steps
from worldrt.runtime.updates import check_kernels


def sample(
    bound: BoundDenoiser,
    table: SamplerTable,
    noise: np.ndarray[Any, Any],
    *,
    guidance: float = 0.0,
    renoise: Renoise | None = None,
    shortcuts: Shortcuts | None = None,
) -> Iterator[int]:
    """Yield the number of rows done after each one. When it ends, `bound.x` holds the result.

    `noise` float32 (N, C, T, H, W), already at the table's first level. `guidance` g gives x0 = c + g (c - u).
    `renoise` gives the noise that row i adds, where the table has such rows. Nothing of the size of a tensor is
    allocated after the first row, but for `shortcuts`, which want a denoiser that was bound for them. The caller may
    stop between two rows.
    """
    check_kernels(bound.device)
    bound.fill("x", noise)
    steps = Steps(bound, table, guidance, renoise)
    step: Callable[[int], None] = Skipping(steps, shortcuts).step if shortcuts else steps.step
    for index in range(len(table)):
        step(index)
        yield index + 1
