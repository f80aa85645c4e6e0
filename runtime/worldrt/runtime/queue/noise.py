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
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from worldrt.engine.tensors import Shape
from worldrt.runtime.noise import check_seed

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
_WORD = 2**64 - 1


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
        self._seed, self._shape, self._count = seed, shape, math.prod(shape)
        self._philox = np.random.Philox(0)  # made once: making one asks the system for entropy
        self._state: Any = self._philox.state
        self._lock = threading.Lock()

    def __call__(self, use: Use, frames: Sequence[int], levels: Sequence[int], row: int) -> Float32:
        half = -(-self._count // 2)
        pairs = self._words(use, frames, levels, row, half).view("<u4").reshape(len(frames), half, 2)
        radius, angle = pairs[..., 1] + 0.5, pairs[..., 0] + 0.5
        radius *= 2.0**-32
        np.log(radius, out=radius)
        radius *= -2
        np.sqrt(radius, out=radius)
        angle *= 2 * math.pi * 2.0**-32
        values = np.empty((len(frames), 2 * half), np.float32)
        np.multiply(radius, np.cos(angle), out=values[:, :half], casting="same_kind")
        np.multiply(radius, np.sin(angle), out=values[:, half:], casting="same_kind")
        return values[:, : self._count].reshape(len(frames), *self._shape)

    def _words(self, use: Use, frames: Sequence[int], levels: Sequence[int], row: int, count: int) -> Words:
        words = np.empty((len(frames), count), "<u8")
        counter, key = self._state["state"]["counter"], self._state["state"]["key"]
        with self._lock:
            key[:] = self._seed, use
            for index, (frame, level) in enumerate(zip(frames, levels, strict=True)):
                counter[:] = 0, level, frame & _WORD, row if use == Use.HISTORY else 0
                self._philox.state = self._state  # it takes copies
                words[index] = self._philox.random_raw(count)
        return words
