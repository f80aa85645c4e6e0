"""The static schemes, all symmetric: one scale for an activation, one for each output channel of a weight or for each
block of it.

FP8 is E4M3 without infinities (Micikevicius et al., FP8 formats for deep learning, 2022): 3 bits of mantissa, largest
number 448. INT8 is that of Jacob et al. (CVPR 2018) with zero as the zero point.
MXFP8 is E4M3 with a power of two for every 32 inputs (OCP Microscaling Formats, 1.0). NVFP4 is E2M1 with an E4M3 scale
for every 16 inputs and one factor for the tensor, here a power of two, so that no product of scales is rounded.
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
    """`dtype` of quantised values and the `largest` of them; whether activations are quantised, and q, k, v of
    attention; how many inputs share a scale of a weight (None: all)."""

    name: Quantization
    dtype: ir.DataType
    largest: float
    activations: bool = True
    attention: bool = False
    block: int | None = None


FP8 = Scheme("fp8", ir.DataType.FLOAT8E4M3FN, 448.0, attention=True)
INT8 = Scheme("int8_static", ir.DataType.INT8, 127.0)
MXFP8 = Scheme("mxfp8", ir.DataType.FLOAT8E4M3FN, 448.0, activations=False, block=32)
NVFP4 = Scheme("nvfp4", ir.DataType.FLOAT4E2M1, 6.0, activations=False, block=16)
_ALL = (FP8, INT8, MXFP8, NVFP4)


def scheme_of(name: str) -> Scheme:
    """Raises `InputError` for an unknown name."""
    for scheme in _ALL:
        if scheme.name == name:
            return scheme
    raise InputError(f"quantisation '{name}': expected one of {', '.join(scheme.name for scheme in _ALL)}")


def scales(amax: Array, scheme: Scheme, dtype: ir.DataType) -> Array:
    """Scales for tensors whose largest magnitudes are `amax`, as `dtype` holds them.

    They are rounded up, so that nothing saturates and that quantisation in float32 and dequantisation in half precision
    use the same number. Where all is zero the scale is 1.
    """
    exact = np.asarray(amax, np.float64) / scheme.largest
    exact = np.where(exact > 0, exact, 1.0)
    if scheme is MXFP8:
        exact = 2.0 ** np.ceil(np.log2(exact))
    rounded = exact.astype(dtype.numpy())
    below = rounded.astype(np.float64) < exact
    up: Array = np.where(below, np.nextafter(rounded, np.asarray(np.inf, rounded.dtype)), rounded)
    return up.astype(rounded.dtype)


def double_scales(amax: Array) -> tuple[Array, float]:
    """The scales of NVFP4 for blocks whose largest magnitudes are `amax`: E4M3 numbers, and the power of two that they
    count in. Rounded up, as `scales`."""
    exact = np.asarray(amax, np.float64) / NVFP4.largest
    largest = float(exact.max())
    unit = 2.0 ** np.ceil(np.log2(largest / FP8.largest)) if largest > 0 else 1.0
    steps = exact / unit
    kind = FP8.dtype.numpy()
    rounded = steps.astype(kind)
    below = rounded.astype(np.float64) < steps
    up = np.where(below, np.nextafter(rounded, np.asarray(FP8.largest, kind)), rounded)
    return np.where(up.astype(np.float32) > 0, up, np.asarray(1, kind)).astype(kind), float(unit)
