"""Checks of the ops' arguments, the same for host and device memory, and the C structs they are packed into."""

from __future__ import annotations

import ctypes
import struct
from math import prod
from typing import Any, NamedTuple

import numpy as np

CODES = {"float32": 0, "float16": 1, "bfloat16": 2, "uint8": 3}  # Dtype of csrc/numbers.h
LAYOUTS = {"i420": 0, "nv12": 1}  # Layout of csrc/rgb_to_yuv420.h
ITEMSIZE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1, "bool": 1, "float64": 8, "int64": 8}

_UPDATE = struct.Struct("=41q d q")  # UpdateArgs of csrc/multistep_update.h
_NORMAL = struct.Struct("=8q")  # NormalArgs of csrc/counter_normal.h
_YUV = struct.Struct("=11q")  # YuvArgs of csrc/rgb_to_yuv420.h
_address, _memory = ctypes.addressof, ctypes.c_char.from_buffer
_NATIVE = {np.dtype(name): name for name in ("float32", "float16", "uint8", "uint16", "bool", "float64", "int64")}


class View(NamedTuple):
    """Memory with a shape. `strides` are in bytes, None where the array is C-contiguous."""

    pointer: int
    end: int  # address after the last byte
    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] | None = None


def host(name: str, array: Any, declared: str | None = None, writable: bool = False) -> View:
    """The view of a numpy array, its dtype checked against the `declared` one if there is one.

    bfloat16 is either an array whose dtype has that name (ml_dtypes registers it), or uint16 bits so declared.
    """
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: expected a numpy array, got {type(array).__name__}")
    flags = array.flags
    if writable and not flags.writeable:
        raise ValueError(f"{name}: expected a writable array, got a read-only one")
    dtype = _NATIVE.get(array.dtype) or str(array.dtype)
    if declared is not None:
        dtype = declared_dtype(name, dtype, declared)
    memory: Any = array
    shape = array.shape
    try:  # a quarter of the time of array.ctypes.data
        pointer = _address(_memory(memory))
    except (TypeError, ValueError):  # read-only, empty, strided, or a dtype that buffers do not know
        pointer = array.ctypes.data
    if flags.c_contiguous:
        return View._make((pointer, pointer + array.nbytes, shape, dtype, None))
    strides = array.strides
    return View(pointer, end_of(pointer, shape, strides, array.itemsize), shape, dtype, strides)


def end_of(pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> int:
    """Address after the last byte of an array with strides in bytes, none of them negative."""
    return pointer + itemsize + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))


def dense_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides in bytes of a C-contiguous array."""
    return tuple(itemsize * prod(shape[axis + 1 :]) for axis in range(len(shape)))


def declared_dtype(name: str, dtype: str, declared: str) -> str:
    """The dtype to read memory as: what it says, unless uint16 bits were declared bfloat16."""
    if dtype == declared or (declared == "bfloat16" and dtype == "uint16"):
        return declared
    expected = "bfloat16, or its bits as uint16" if declared == "bfloat16" else declared
    raise ValueError(f"{name}: expected {expected} (dtype={declared!r}), got {dtype}")


def rows_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """[B, T, 4] of the coefficients for latents of this shape."""
    if len(shape) < 4:
        raise ValueError(f"x: expected shape [B, C, T, H, W], got {list(shape)}")
    return shape[0], shape[2], 4


def per_frame(name: str, view: View, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> int:
    """Check a dense table with one entry per frame, shared ([T, ...]) or per batch ([B, T, ...]); its batch stride.

    `shape` is that of the table per batch.
    """
    if view.shape not in (shape, shape[1:]) or view.dtype not in dtypes or view.strides is not None:
        expected = f"contiguous {' or '.join(dtypes)} {list(shape[1:])} or {list(shape)}"
        raise ValueError(f"{name}: expected {expected}, got {view.dtype}{list(view.shape)}")
    return prod(shape[1:]) if view.shape == shape else 0


_ABSENT = (0, 0, 0, 0)  # `Frames` of an array that is not there


def pack_update(
    operands: tuple[View | None, ...], coefficients: View, keep: View | None, shift: int, guidance: float
) -> bytes:
    """Check the update's arrays (`operands` in the order of the C struct) and pack them."""
    x, x0, uncond, prev, noise, fill, out, guided_out = operands
    assert x and x0 and out
    shape, dtype = x.shape, x0.dtype
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"x0: expected float32, float16 or bfloat16, got {dtype}")
    batch, frames, _ = rows_shape(shape)
    channels, inner = shape[1], shape[3:]
    if not 0 <= shift <= frames:
        raise ValueError(f"shift: expected 0..{frames} (frames), got {shift}")
    if shift and not fill:
        raise ValueError(f"fill: expected float32 latents for the {shift} frames that shift opens, got None")
    size = prod(inner)
    dense, opened = (channels * frames * size, frames * size, size), (channels * shift * size, shift * size, size)
    numbers = (
        *_frames("x", x, shape, "float32", dense),
        *_frames("x0", x0, shape, dtype, dense),
        *(_frames("uncond", uncond, shape, dtype, dense) if uncond else _ABSENT),
        *(_frames("prev", prev, shape, "float32", dense) if prev else _ABSENT),
        *(_frames("noise", noise, shape, "float32", dense) if noise else _ABSENT),
        *(_frames("fill", fill, (batch, channels, shift, *inner), "float32", opened) if fill else _ABSENT),
        *_frames("out", out, shape, "float32", dense),
        *(_frames("guided_out", guided_out, shape, "float32", dense) if guided_out else _ABSENT),
        coefficients.pointer,
        keep.pointer if keep else 0,
        per_frame("coefficients", coefficients, (batch, frames, 4), ("float64",)),
        per_frame("keep", keep, (batch, frames), ("bool", "uint8")) if keep else 0,
        *(batch, channels, frames, size, shift),
    )
    _check_overlaps(operands)
    return _UPDATE.pack(*numbers, guidance, CODES[dtype])


def _frames(name: str, view: View, shape: tuple[int, ...], dtype: str, dense: tuple[int, int, int]) -> tuple[int, ...]:
    """Address and (B, C, T) strides in elements: `Frames` of the C struct."""
    if view.shape != shape or view.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}{list(shape)}, got {view.dtype}{list(view.shape)}")
    if view.strides is None:
        return view.pointer, *dense
    itemsize = inner = ITEMSIZE_BYTES[dtype]
    for extent, stride in zip(shape[:2:-1], view.strides[:2:-1], strict=True):
        if extent != 1 and stride != inner:
            raise ValueError(f"{name}: expected contiguous axes after T, got strides {view.strides} (bytes)")
        inner *= extent
    if any(stride < 0 or stride % itemsize for stride in view.strides[:3]):
        raise ValueError(f"{name}: expected strides that are multiples of {itemsize}, got {view.strides} (bytes)")
    return view.pointer, *(stride // itemsize for stride in view.strides[:3])


def _check_overlaps(operands: tuple[View | None, ...]) -> None:
    """Refuse an output that shares memory with another array, unless it is exactly an operand of its shape."""
    present = [view for view in operands if view]
    for output in (operands[7], operands[6]):
        if output is None:
            continue
        start, end = output.pointer, output.end
        for other in present:
            if other.pointer < end and start < other.end and other is not output:
                _check_overlap(operands, output, other)


_NAMES = ("x", "x0", "uncond", "prev", "noise", "fill", "out", "guided_out")


def _check_overlap(operands: tuple[View | None, ...], output: View, other: View) -> None:
    """The rule for two arrays whose extents overlap."""
    # By identity, from the end: an output that was given as an operand stands there twice.
    index, other_index = (next(i for i in range(7, -1, -1) if operands[i] is view) for view in (output, other))
    itself = other_index < 5
    same = output.pointer == other.pointer and output.strides == other.strides and output.dtype == other.dtype
    if (itself and same) or _interleaved(output, other):
        return
    name, other_name = _NAMES[index], _NAMES[other_index]
    rule = f"all memory of {other_name} or none of it" if itself else f"no memory of {other_name}"
    raise ValueError(f"{name}: expected {rule}, got an overlap")


def _interleaved(one: View, two: View) -> bool:
    """Whether two overlapping extents are different frames of one larger buffer, so share no byte."""
    if not one.strides or one.strides != two.strides or one.dtype != two.dtype:
        return False
    batch, channel, frame, *_ = one.strides
    if not channel or batch % channel:
        return False
    size_bytes = ITEMSIZE_BYTES[one.dtype] * prod(one.shape[3:])
    one_bytes, two_bytes = ((view.shape[2] - 1) * frame + size_bytes for view in (one, two))
    offset = (two.pointer - one.pointer) % channel
    return one_bytes <= offset and offset + two_bytes <= channel


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
    strides = rgb.strides or dense_strides(rgb.shape, itemsize)
    if any(stride % itemsize for stride in strides):
        raise ValueError(f"rgb: expected strides that are multiples of {itemsize}, got {strides} (bytes)")
    elements = (stride // itemsize for stride in strides)
    return _YUV.pack(rgb.pointer, *elements, out.pointer, frames, height, width, CODES[rgb.dtype], LAYOUTS[layout])


def pack_normal(out: View, counters: View, first: View | None, scales: View | None, seed: int) -> bytes:
    """The C struct of noise by counter, checked."""
    if len(out.shape) < 2 or out.dtype != "float32" or out.strides is not None:
        raise ValueError(f"out: expected contiguous float32 [n, ...], got {out.dtype}{list(out.shape)}")
    rows, *rest = out.shape
    if counters.shape != (rows, 4) or counters.dtype != "int64" or counters.strides is not None:
        raise ValueError(f"counters: expected contiguous int64[{rows}, 4], got {counters.dtype}{list(counters.shape)}")
    if first and (first.shape != (1,) or first.dtype != "int64"):
        raise ValueError(f"first: expected int64[1], got {first.dtype}{list(first.shape)}")
    if scales and (scales.shape != (rows,) or scales.dtype != "float64" or scales.strides is not None):
        raise ValueError(f"scales: expected contiguous float64[{rows}], got {scales.dtype}{list(scales.shape)}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: expected 0 to 2^63 - 1, got {seed}")
    count = prod(rest)
    optional = (view.pointer if view else 0 for view in (first, scales))
    return _NORMAL.pack(out.pointer, counters.pointer, *optional, rows, count, count, seed)
