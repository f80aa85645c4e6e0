"""Noise by counter: a function of seed, use, frame, level and row alone, so ranks, windowings and restarts agree.

The words are those of Philox 4x64-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3; 2011) with

    key     = (seed, use)                  use: 0 a frame's first noise, 1 a sampler step, 2 history for one row
    counter = (block, level, frame, row)   block 1, 2, ... ; frame modulo 2^64; row 0 but for use 2

Each 64-bit word makes two values by Box and Muller (1958): with u, v its upper and lower 32 bits, each plus 0.5 and
divided by 2^32, sqrt(-2 ln u) cos(2 pi v) and, after all of these, sqrt(-2 ln u) sin(2 pi v), computed in float64 and
rounded to float32, in C order. Words do not depend on numpy's version or the machine; logarithm and sine may in the
last bit of float64, which float32 shows once in some 10^8 values.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from worldrt.engine.tensors import Shape
from worldrt.runtime.noise import check_seed

Float32 = np.ndarray[Any, np.dtype[np.float32]]
_WORD = 2**64 - 1


class Use(IntEnum):
    """What noise is drawn for."""

    START = 0
    STEP = 1
    HISTORY = 2


class Noise(Protocol):
    """Where a queue gets standard normal noise from."""

    def __call__(self, use: Use, frame: int, level: int, row: int) -> Float32:
        """float32 of the shape of one frame (B, C, ...). `level`: that of the frame before a step, or after START and
        HISTORY."""
        ...


class CounterNoise:
    """The noise of this module for frames of one shape. Raises `InputError` for a seed beyond 32 bits."""

    def __init__(self, seed: int, shape: Shape) -> None:
        check_seed(seed)
        self._seed, self._shape, self._count = seed, shape, math.prod(shape)

    def __call__(self, use: Use, frame: int, level: int, row: int) -> Float32:
        key = np.array([self._seed, use], np.uint64)
        counter = np.array([0, level, frame & _WORD, row if use == Use.HISTORY else 0], np.uint64)
        words = np.random.Philox(counter=counter, key=key).random_raw(-(-self._count // 2))
        radius = np.sqrt(-2 * np.log(((words >> np.uint64(32)) + 0.5) * 2.0**-32))
        angle = ((words & np.uint64(0xFFFFFFFF)) + 0.5) * (2 * math.pi * 2.0**-32)
        values = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[: self._count]
        return values.astype(np.float32).reshape(self._shape)
