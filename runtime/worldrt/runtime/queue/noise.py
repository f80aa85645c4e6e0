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
import threading
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
        self._words = np.random.Philox(0)  # made once: making one asks the system for entropy
        self._state, self._lock = self._words.state, threading.Lock()

    def __call__(self, use: Use, frame: int, level: int, row: int) -> Float32:
        half = -(-self._count // 2)
        key = np.array([self._seed, use], np.uint64)
        counter = np.array([0, level, frame & _WORD, row if use == Use.HISTORY else 0], np.uint64)
        state: Any = {**self._state, "state": {"counter": counter, "key": key}}
        with self._lock:
            self._words.state = state
            words = self._words.random_raw(half)
        lower, upper = words.astype("<u8", copy=False).view("<u4").reshape(half, 2).T
        radius, angle = upper + 0.5, lower + 0.5
        radius *= 2.0**-32
        np.log(radius, out=radius)
        radius *= -2
        np.sqrt(radius, out=radius)
        angle *= 2 * math.pi * 2.0**-32
        values = np.empty(2 * half, np.float32)
        np.multiply(radius, np.cos(angle), out=values[:half], casting="same_kind")
        np.multiply(radius, np.sin(angle), out=values[half:], casting="same_kind")
        return values[: self._count].reshape(self._shape)
