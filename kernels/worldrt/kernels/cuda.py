"""The same ops on device memory: asynchronous on a stream, no allocation, safe to capture in a CUDA graph.

An array is an object with `__cuda_array_interface__` (torch, cupy, numba, cuda.core) or a tuple (address, shape, dtype
name) of contiguous memory. All of them live on the current device. Launch once before capturing: the driver loads a
kernel at its first launch. A captured launch keeps addresses, shapes, `shift` and `guidance`; coefficients and `keep`
are read on the device, so they may change between replays.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from worldrt.kernels import _arguments, _library
from worldrt.kernels._arguments import View


class CudaArray(Protocol):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


DeviceArray = CudaArray | tuple[int, tuple[int, ...], str]

_TYPES = {
    **{
        "<f4": "float32",
        "<f2": "float16",
        "<f8": "float64",
        "|u1": "uint8",
        "<u2": "uint16",
        "|b1": "bool",
        "<i8": "int64",
    },
    **{"<V2": "bfloat16", "|V2": "bfloat16"},  # the array interface has no name for it
}


def missing() -> str | None:
    """Why the ops of this module cannot run here, or None."""
    return _library.load("cuda")[1] or None


def multistep_update(
    x: DeviceArray,
    x0: DeviceArray,
    *,
    uncond: DeviceArray | None = None,
    guidance: float = 0.0,
    prev: DeviceArray | None = None,
    noise: DeviceArray | None = None,
    coefficients: DeviceArray,
    keep: DeviceArray | None = None,
    shift: int = 0,
    fill: DeviceArray | None = None,
    out: DeviceArray,
    guided_out: DeviceArray | None = None,
    dtype: str | None = None,
    stream: int = 0,
) -> None:
    """`worldrt.kernels.multistep_update` on device memory; `stream` is a cudaStream_t as an integer.

    `coefficients` is float64 [T, 4] or [B, T, 4], `keep` bool or uint8 [T] or [B, T]. A row with c (or d) not 0
    needs `prev` (or `noise`): that cannot be checked here, the term is left out.

    Raises ValueError for arguments that break the rules, RuntimeError where the kernel cannot be launched.
    """
    operands = (
        _view("x", x),
        _view("x0", x0, dtype),
        _view("uncond", uncond, dtype),
        _view("prev", prev),
        _view("noise", noise),
        _view("fill", fill),
        _view("out", out),
        _view("guided_out", guided_out),
    )
    rows = _view("coefficients", coefficients)
    if not (operands[0] and operands[1] and operands[6] and rows):
        raise ValueError("x, x0, out, coefficients: expected device arrays, got None")
    packed = _arguments.pack_update(operands, rows, _view("keep", keep), shift, guidance)
    _check("multistep_update", _load().multistep_update(packed, stream))


def counter_normal(
    out: DeviceArray,
    counters: DeviceArray,
    *,
    seed: int,
    first: DeviceArray | None = None,
    scales: DeviceArray | None = None,
    stream: int = 0,
) -> None:
    """`worldrt.kernels.counter_normal` on device memory; `stream` is a cudaStream_t as an integer. Counters,
    `first` and scales are read on the device.

    Raises ValueError for arguments that break the rules, RuntimeError where the kernel cannot be launched.
    """
    target, table = _view("out", out), _view("counters", counters)
    if not (target and table):
        raise ValueError("out, counters: expected device arrays, got None")
    packed = _arguments.pack_normal(target, table, _view("first", first), _view("scales", scales), seed)
    _check("counter_normal", _load().counter_normal(packed, stream))


def rgb_to_yuv420(
    rgb: DeviceArray,
    *,
    layout: Literal["i420", "nv12"] = "nv12",
    out: DeviceArray,
    dtype: str | None = None,
    stream: int = 0,
) -> None:
    """`worldrt.kernels.rgb_to_yuv420` on device memory; `stream` is a cudaStream_t as an integer.

    Raises ValueError for arguments that break the rules, RuntimeError where the kernel cannot be launched.
    """
    source, target = _view("rgb", rgb, dtype), _view("out", out)
    if not (source and target):
        raise ValueError("rgb, out: expected device arrays, got None")
    packed = _arguments.pack_yuv(source, target, layout)
    _check("rgb_to_yuv420", _load().rgb_to_yuv420(packed, stream))


def _view(name: str, array: DeviceArray | None, declared: str | None = None) -> View | None:
    if array is None:
        return None
    if isinstance(array, tuple):
        pointer, shape, dtype = array
        strides = None
    else:
        interface = getattr(array, "__cuda_array_interface__", None)
        if interface is None:
            kinds = "__cuda_array_interface__ or (address, shape, dtype)"
            raise ValueError(f"{name}: expected {kinds}, got {type(array).__name__}")
        pointer, shape = interface["data"][0] or 0, tuple(interface["shape"])
        dtype = _TYPES.get(interface["typestr"], interface["typestr"])
        strides = interface.get("strides")
    if declared is not None:
        dtype = _arguments.declared_dtype(name, dtype, declared)
    if dtype not in _arguments.ITEMSIZE_BYTES:
        raise ValueError(f"{name}: expected one of {', '.join(_arguments.ITEMSIZE_BYTES)}, got {dtype}")
    itemsize = _arguments.ITEMSIZE_BYTES[dtype]
    dense = _arguments.dense_strides(shape, itemsize)
    if strides is None or tuple(strides) == dense:
        return View(pointer, _arguments.end_of(pointer, shape, dense, itemsize), shape, dtype)
    strides = tuple(strides)
    return View(pointer, _arguments.end_of(pointer, shape, strides, itemsize), shape, dtype, strides)


def _load() -> _library.Library:
    library, reason = _library.load("cuda")
    if library is None:
        raise RuntimeError(f"CUDA kernels: {reason}")
    return library


def _check(op: str, code: int) -> None:
    if code:
        text = _load().error_text(code).decode()
        raise RuntimeError(f"{op}: the CUDA launch failed: {text} (CUDA error {code})")
