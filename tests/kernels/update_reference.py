"""The update written once more from its formula: whole arrays, float64, no loop over frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def as_float64(array: Array) -> Array:
    if array.dtype == np.uint16:  # the bits of bfloat16
        return np.frombuffer((array.astype("<u4") * 65536).tobytes(), "<f4").reshape(array.shape).astype(np.float64)
    return array.astype(np.float64)


def reference_update(
    x: Array,
    x0: Array,
    *,
    coefficients: Array,
    uncond: Array | None = None,
    guidance: float = 0.0,
    prev: Array | None = None,
    noise: Array | None = None,
    keep: Array | None = None,
    shift: int = 0,
    fill: Array | None = None,
) -> tuple[Array, Array]:
    """`out` and `guided_out`."""
    batch, _, frames = x.shape[:3]
    rows = np.broadcast_to(coefficients, (batch, frames, 4)).astype(np.float64)
    a, b, c, d = (rows[:, None, :, i].reshape(batch, 1, frames, *[1] * (x.ndim - 3)) for i in range(4))
    g = as_float64(x0)
    if uncond is not None:
        g = g + guidance * (g - as_float64(uncond))
    y = a * as_float64(x) + b * g
    if prev is not None:
        y = y + c * as_float64(prev)
    if noise is not None:
        y = y + d * as_float64(noise)
    stepped = y.astype(np.float32)
    if keep is not None:
        mask = np.broadcast_to(keep, (batch, frames)).reshape(a.shape) != 0
        stepped = np.where(mask, x, stepped)
    guided = g.astype(np.float32)
    if shift:
        stepped = np.concatenate([stepped[:, :, shift:], fill], axis=2)
        guided = np.concatenate([guided[:, :, shift:], np.zeros_like(guided[:, :, :shift])], axis=2)
    return stepped, guided


class Operands:
    """Random operands of one case, seeded."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "float32", shift: int = 0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)

        def normal(*size: int) -> Array:
            return rng.standard_normal(size).astype(np.float32)

        self.x, self.prev, self.noise = normal(*shape), normal(*shape), normal(*shape)
        self.x0, self.uncond = (stored(normal(*shape), dtype) for _ in range(2))
        self.fill = normal(*shape[:2], shift, *shape[3:])
        self.shared_rows = rng.standard_normal((shape[2], 4))
        self.rows = rng.standard_normal((shape[0], shape[2], 4))
        self.keep = rng.integers(0, 2, (shape[0], shape[2])).astype(bool)


def stored(values: Array, dtype: str) -> Array:
    """float32 values as an array of `dtype`; bfloat16 as its bits (rounded towards zero)."""
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def assert_same_bits(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype and got.shape == expected.shape
    np.testing.assert_array_equal(
        np.ascontiguousarray(got).view(np.uint8), np.ascontiguousarray(expected).view(np.uint8)
    )
