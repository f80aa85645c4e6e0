"""Noise by counter: every value is a function of seed, draw and place alone, so any part can be made by itself.

The generator is Philox 4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3; 2011), laid out as cuRAND
and torch do it on a GPU, so that `normal(shape, seed, k)` is what the k-th `torch.randn(shape, generator=...)` gives
there, but for the last bits of logarithm and sine. That holds while the GPU has a thread for each value: up to 270 336
on an H200 or H100 SXM and 303 104 on a B200, which every picture of Cosmos-Predict2 stays below.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from worldrt.engine.tensors import Shape

UInt32 = np.ndarray[Any, np.dtype[np.uint32]]

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
ROUNDS = 10


def philox(counter: UInt32, key: tuple[int, int]) -> UInt32:
    """Philox 4x32-10 of counters (4, n) under a key of two 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        one, two = (c.astype(np.uint64) * np.uint64(m) for c, m in zip((c0, c2), _MULTIPLIERS, strict=True))
        c0, c1, c2, c3 = _high(two) ^ c1 ^ np.uint32(k0), _low(two), _high(one) ^ c3 ^ np.uint32(k1), _low(one)
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return np.stack((c0, c1, c2, c3))


def normal(shape: Shape, seed: int, draw: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 values of variance 1, in C order. `draw` counts the tensors that are drawn from one seed."""
    count = math.prod(shape)
    counter = np.zeros((4, count), np.uint32)
    counter[0], counter[2] = draw, np.arange(count, dtype=np.uint32)
    first, second, *_ = philox(counter, (seed & _MASK, seed >> 32)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((first + 0.5) / 2**32))  # Box and Muller, A note on the generation of ... (1958)
    values: np.ndarray[Any, np.dtype[np.float32]] = radius * np.sin((second + 0.5) * (2 * math.pi / 2**32))
    return values.astype(np.float32).reshape(shape)


def _low(words: np.ndarray[Any, np.dtype[np.uint64]]) -> UInt32:
    return words.astype(np.uint32)


def _high(words: np.ndarray[Any, np.dtype[np.uint64]]) -> UInt32:
    return _low(words >> np.uint64(32))
