"""Noise by counter: a function of seed, use, frame, level and row alone, so ranks, windowings and restarts agree.

The words are those of Philox 4x64-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3; 2011) with

    key     = (seed, use)                  use: 0 a frame's first noise, 1 a sampler step, 2 history for one row
    counter = (block, level, frame, row)   block 1, 2, ... ; frame modulo 2^64; row 0 but for use 2

`worldrt.kernels.counter_normal` says how words become values. The compiled kernels for CPU and CUDA and numpy give the
same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from worldrt.engine.tensors import Shape
from worldrt.kernels import counter_normal
from worldrt.runtime.noise import check_seed

Float32 = np.ndarray[Any, np.dtype[np.float32]]


class Use(IntEnum):
    """What noise is drawn for."""

    START = 0
    STEP = 1
    HISTORY = 2


class Noise(Protocol):
    """Where a queue gets standard normal noise from."""

    def __call__(self, use: Use, frames: Sequence[int], levels: Sequence[int], row: int) -> Float32:
        """float32 (n, B, C, ...) for n frames. `levels`: those of the frames before a step, or after START and
        HISTORY. `row` counts for HISTORY alone."""
        ...


class CounterNoise:
    """The noise of this module for frames of one shape. Raises `InputError` for a seed beyond 32 bits."""

    def __init__(self, seed: int, shape: Shape) -> None:
        check_seed(seed)
        self.seed, self._shape = seed, shape

    def __call__(self, use: Use, frames: Sequence[int], levels: Sequence[int], row: int) -> Float32:
        made = np.empty((len(frames), *self._shape), np.float32)
        return counter_normal(made, counters(use, frames, levels, row), seed=self.seed)


def counters(use: Use, frames: Sequence[int], levels: Sequence[int], row: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n, 4): what the noise of each frame is a function of, besides the seed."""
    at = row if use == Use.HISTORY else 0
    return np.array([(use, level, frame, at) for frame, level in zip(frames, levels, strict=True)], np.int64)
