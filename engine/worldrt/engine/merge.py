"""Low-rank changes added to stored weights: W + sum of factor * B A, in float32, rounded once to how W is stored."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

Float32 = np.ndarray[Any, np.dtype[np.float32]]
_CHUNK_VALUES = 1 << 18  # so that they stay in the processor's cache
_BOUNDS = {"float16": 65520.0, "bfloat16": 2.0**128 * (1 - 2.0**-9)}  # from here on they are rounded to infinity


@dataclass(frozen=True)
class Term:
    """One change of one weight: `factor` B A. A float32 [rank, in], B float32 [out, rank]."""

    a: Float32
    b: Float32
    factor: float


def merged(base: np.ndarray[Any, Any], dtype: str, terms: Sequence[Term]) -> np.ndarray[Any, Any]:
    """A fresh array like `base` [out, in] (bfloat16 as uint16) with some changes added, some rows at a time, on all
    processors. Raises `OverflowError` where a sum is larger than what `dtype` holds, or none."""
    bound = _BOUNDS.get(dtype, math.inf)
    result = np.empty_like(base)
    rows = max(1, _CHUNK_VALUES // max(1, base.shape[1]))

    def add(start: int) -> None:
        part = slice(start, start + rows)
        values = widened(base[part], dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            for term in terms:
                values += (np.float32(term.factor) * term.b[part]) @ term.a
        if values.size and not (-bound < values.min() and values.max() < bound):
            raise OverflowError(f"a sum is not within what {dtype} holds")
        result[part] = narrowed(values, dtype)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(add, range(0, len(base), rows)))
    return result


def widened(values: np.ndarray[Any, Any], dtype: str) -> Float32:
    """Stored values as fresh float32; bfloat16 comes as its 16 bits."""
    if dtype != "bfloat16":
        return values.astype(np.float32)
    bits = values.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def narrowed(values: Float32, dtype: str) -> np.ndarray[Any, Any]:
    """float32 as it is stored, rounded to nearest even; bfloat16 as its 16 bits."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += bits
    rounded += 0x7FFF
    rounded >>= 16
    if np.isnan(np.vdot(values, values)):  # what would be rounded up to infinity, or past it
        rounded = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded)
    return rounded.astype(np.uint16)
