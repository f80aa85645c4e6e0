"""The static schemes: symmetric, one scale for an activation and one for each output channel of a weight.

FP8 is E4M3 without infinities (Micikevicius et al., FP8 formats for deep learning, 2022): 3 bits of mantissa, largest
number 448. INT8 is that of Jacob et al. (CVPR 2018) with zero as the zero point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import Quantization
from worldrt.engine.errors import InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scheme:
    """`dtype` of quantised values, the `largest` of them, and whether q, k and v of attention are quantised too."""

    name: Quantization
    dtype: ir.DataType
    largest: float
    attention: bool


FP8 = Scheme("fp8", ir.DataType.FLOAT8E4M3FN, 448.0, attention=True)
# no library has an int8 attention that takes floats in and out
INT8 = Scheme("int8_static", ir.DataType.INT8, 127.0, attention=False)


def scheme_of(name: str) -> Scheme:
    """Raises `InputError` for an unknown name."""
    for scheme in (FP8, INT8):
        if scheme.name == name:
            return scheme
    raise InputError(f"quantisation '{name}': expected {FP8.name} or {INT8.name}")


def scales(amax: Array, scheme: Scheme, dtype: ir.DataType) -> Array:
    """Scales for tensors whose largest magnitudes are `amax`, as `dtype` holds them.

    They are rounded up, so that nothing saturates and that quantisation in float32 and dequantisation in half precision
    use the same number. Where all is zero the scale is 1.
    """
    exact = np.asarray(amax, np.float64) / scheme.largest
    exact = np.where(exact > 0, exact, 1.0)
    rounded = exact.astype(dtype.numpy())
    below = rounded.astype(np.float64) < exact
    up: Array = np.where(below, np.nextafter(rounded, np.asarray(np.inf, rounded.dtype)), rounded)
    return up.astype(rounded.dtype)
