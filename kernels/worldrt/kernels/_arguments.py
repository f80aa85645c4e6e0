"""Checks of the ops' arguments, the same for host and device memory, and the C structs they are packed into."""

from __future__ import annotations

import struct
from math import prod
from typing import Any, NamedTuple

import numpy as np

CODES = {"float32": 0, "float16": 1, "bfloat16": 2, "uint8": 3}  # Dtype of csrc/numbers.h
LAYOUTS = {"i420": 0, "nv12": 1}  # Layout of csrc/rgb_to_yuv420.h
ITEMSIZE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1, "bool": 1, "float64": 8}

_UPDATE = struct.Struct("=41q d q")  # UpdateArgs of csrc/multistep_update.h
_YUV = struct.Struct("=11q")  # YuvArgs of csrc/rgb_to_yuv420.h
_NATIVE = {np.dtype(name): name for name in ("float32", "float16", "uint8", "uint16", "bool", "float64")}


class View(NamedTuple):
    """Memory with a shape. `strides` are in bytes, None where the array is C-contiguous."""

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] | None = None


class Latents(NamedTuple):
    """A checked array [B, C, T, ...] with strides in elements; one of the operands of the update."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    where: tuple[int, int, int, int]  # address, then batch, channel and frame strides: `Frames` of the C struct


def host(name: str, array: Any, *, declared: str | None = None, writable: bool = False) -> View:
    """The view of a numpy array, its dtype checked against the `declared` one if there is one.

    bfloat16 is either an array whose dtype has that name (ml_dtypes registers it), or uint16 bits so declared.
    """
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: expected a numpy array, got {type(array).__name__}")
    flags = array.flags
    if writable and not flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    dtype = declared_dtype(name, _NATIVE.get(array.dtype) or str(array.dtype), declared)
    interface: Any = array.__array_interface__
    return View(interface["data"][0], array.shape, dtype, None if flags.c_contiguous else array.strides)


def declared_dtype(name: str, dtype: str, declared: str | None) -> str:
    """The dtype to read memory as: what it says, unless uint16 bits were declared bfloat16."""
    if declared is None or dtype == declared:
        return dtype
    if declared == "bfloat16" and dtype == "uint16":
        return declared
    expected = "bfloat16, or its bits as uint16" if declared == "bfloat16" else declared
    raise ValueError(f"{name}: expected {expected} (dtype={declared!r}), got {dtype}")


def latents(name: str, view: View, shape: tuple[int, ...], dtype: str) -> Latents:
    """Check that `view` is latents of this shape and dtype: any strides over B, C and T, contiguous after T."""
    if view.shape != shape or view.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}{list(shape)}, got {view.dtype}{list(view.shape)}")
    size = prod(shape[3:])
    frame, channel = size, size * shape[2]
    batch = channel * shape[1]
    if view.strides is not None:
        batch, channel, frame = _strides(name, view, (batch, channel, frame))
    return Latents(name, dtype, shape, (view.pointer, batch, channel, frame))


def _strides(name: str, view: View, dense: tuple[int, ...]) -> tuple[int, ...]:
    itemsize = inner = ITEMSIZE_BYTES[view.dtype]
    assert view.strides is not None
    for extent, stride in zip(view.shape[:2:-1], view.strides[:2:-1], strict=True):
        if extent != 1 and stride != inner:
            raise ValueError(f"{name}: expected contiguous axes after T, got strides {view.strides} (bytes)")
        inner *= extent
    if any(stride < 0 or stride % itemsize for stride in view.strides[:3]):
        raise ValueError(f"{name}: expected strides that are multiples of {itemsize}, got {view.strides} (bytes)")
    axes = zip(view.shape, view.strides, dense, strict=False)
    return tuple(whole if extent == 1 else stride // itemsize for extent, stride, whole in axes)


def check_overlap(output: Latents, other: Latents, *, itself: bool = True) -> None:
    """Refuse memory that `output` shares with `other`, unless they are one array and `itself` allows that."""
    start, end = _extent(output)
    other_start, other_end = _extent(other)
    if start >= other_end or other_start >= end or _interleaved(output, other):
        return
    if not (itself and output.where == other.where and output.dtype == other.dtype):
        rule = f"the memory of {other.name} exactly, or none of it" if itself else f"no memory of {other.name}"
        raise ValueError(f"{output.name}: expected to share {rule}, got an overlap")


def _extent(array: Latents) -> tuple[int, int]:
    """Address of the first byte, and of the byte after the last."""
    start, batch, channel, frame = array.where
    b, c, t = array.shape[:3]
    last = (b - 1) * batch + (c - 1) * channel + (t - 1) * frame + prod(array.shape[3:])
    return start, start + last * ITEMSIZE_BYTES[array.dtype]


def _interleaved(one: Latents, two: Latents) -> bool:
    """Whether two overlapping extents are different frames of one larger buffer, so share no byte."""
    (start, batch, channel, frame), (other_start, *other_strides) = one.where, two.where
    if [batch, channel, frame] != other_strides or one.dtype != two.dtype or not channel or batch % channel:
        return False
    itemsize, size = ITEMSIZE_BYTES[one.dtype], prod(one.shape[3:])
    one_bytes, two_bytes = (((array.shape[2] - 1) * frame + size) * itemsize for array in (one, two))
    offset = (other_start - start) % (channel * itemsize)
    return one_bytes <= offset and offset + two_bytes <= channel * itemsize


def per_frame(name: str, view: View, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> int:
    """Check a dense table with one entry per frame, shared ([T, ...]) or per batch ([B, T, ...]); its batch stride.

    `shape` is that of the table per batch.
    """
    if view.shape not in (shape, shape[1:]) or view.dtype not in dtypes or view.strides is not None:
        expected = f"contiguous {' or '.join(dtypes)} {list(shape[1:])} or {list(shape)}"
        raise ValueError(f"{name}: expected {expected}, got {view.dtype}{list(view.shape)}")
    return prod(shape[1:]) if view.shape == shape else 0


def update_operands(
    x: View,
    x0: View,
    uncond: View | None,
    prev: View | None,
    noise: View | None,
    fill: View | None,
    out: View,
    guided_out: View | None,
    shift: int,
) -> tuple[Latents | None, ...]:
    """Check shapes, dtypes and aliasing of the update's arrays; in the order of the C struct."""
    shape = x.shape
    if len(shape) < 4:
        raise ValueError(f"x: expected shape [B, C, T, H, W], got {list(shape)}")
    if not 0 <= shift <= shape[2]:
        raise ValueError(f"shift: expected 0..{shape[2]} (frames), got {shift}")
    if shift and fill is None:
        raise ValueError(f"fill: expected float32 latents for the {shift} frames that shift opens, got None")
    if x0.dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"x0: expected float32, float16 or bfloat16, got {x0.dtype}")
    opened = (*shape[:2], shift, *shape[3:])
    checked = [
        latents("x", x, shape, "float32"),
        latents("x0", x0, shape, x0.dtype),
        latents("uncond", uncond, shape, x0.dtype) if uncond else None,
        latents("prev", prev, shape, "float32") if prev else None,
        latents("noise", noise, shape, "float32") if noise else None,
        latents("fill", fill, opened, "float32") if fill else None,
    ]
    outputs = [latents("out", out, shape, "float32")]
    if guided_out:
        outputs.append(latents("guided_out", guided_out, shape, "float32"))
        check_overlap(outputs[1], outputs[0], itself=False)
    for output in outputs:
        for operand in checked:
            if operand:
                check_overlap(output, operand, itself=operand.name != "fill")
    return (*checked, outputs[0], outputs[1] if guided_out else None)


_ABSENT = (0, 0, 0, 0)


def pack_update(
    operands: tuple[Latents | None, ...],
    coefficients: View,
    keep: View | None,
    *,
    shift: int,
    guidance: float,
) -> bytes:
    """The C struct of the update; `operands` come from `update_operands`."""
    x, x0 = operands[:2]
    assert x and x0
    batch, channels, frames = x.shape[:3]
    where = [number for operand in operands for number in (operand.where if operand else _ABSENT)]
    return _UPDATE.pack(
        *where,
        coefficients.pointer,
        keep.pointer if keep else 0,
        per_frame("coefficients", coefficients, (batch, frames, 4), ("float64",)),
        per_frame("keep", keep, (batch, frames), ("bool", "uint8")) if keep else 0,
        batch,
        channels,
        frames,
        prod(x.shape[3:]),
        shift,
        guidance,
        CODES[x0.dtype],
    )


def check_rgb(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """The shape of `out`, from a legal shape [T, H, W, 3] of `rgb`."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected {' or '.join(LAYOUTS)}, got {layout!r}")
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"rgb: expected shape [T, H, W, 3], got {list(shape)}")
    frames, height, width, _ = shape
    if height % 2 or width % 2:
        raise ValueError(f"rgb: expected an even height and width (4:2:0 chroma), got {height}x{width}")
    return frames, height * 3 // 2, width


def pack_yuv(rgb: View, out: View, layout: str) -> bytes:
    """The C struct of the colour conversion, checked."""
    shape = check_rgb(rgb.shape, layout)
    if rgb.dtype not in CODES:
        raise ValueError(f"rgb: expected float32, float16, bfloat16 or uint8, got {rgb.dtype}")
    if out.shape != shape or out.dtype != "uint8" or out.strides is not None:
        raise ValueError(f"out: expected contiguous uint8{list(shape)}, got {out.dtype}{list(out.shape)}")
    frames, height, width, _ = rgb.shape
    itemsize = ITEMSIZE_BYTES[rgb.dtype]
    strides = rgb.strides or tuple(n * itemsize for n in (height * width * 3, width * 3, 3, 1))
    if any(stride % itemsize for stride in strides):
        raise ValueError(f"rgb: expected strides that are multiples of {itemsize}, got {strides} (bytes)")
    elements = (stride // itemsize for stride in strides)
    return _YUV.pack(rgb.pointer, *elements, out.pointer, frames, height, width, CODES[rgb.dtype], LAYOUTS[layout])
