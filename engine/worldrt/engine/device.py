"""Where tensors live: buffers, and the host device. `worldrt.engine.cuda` holds the CUDA one."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from worldrt.engine.errors import BackendError, ShapeError
from worldrt.engine.tensors import ITEM_BYTES, Shape, size_bytes

# numpy has no bfloat16: on the host its values are seen as their 16 bits
_NUMPY = {name: np.dtype("uint16" if name == "bfloat16" else name) for name in ITEM_BYTES}


@dataclass(frozen=True, eq=False)
class Buffer:
    """Contiguous memory with a shape and a dtype. It keeps its `owner` alive and is never resized."""

    pointer: int
    shape: Shape
    dtype: str
    owner: object = field(repr=False)
    device: str = "cpu"

    @property
    def nbytes(self) -> int:
        return size_bytes(self.shape, self.dtype)

    def numpy(self) -> np.ndarray[Any, Any]:
        """A view of host memory (bfloat16 as uint16), writable as its owner is. Raises `BackendError` off the host."""
        if self.device != "cpu":
            raise BackendError(f"a buffer on {self.device} has no numpy view; download it first")
        if self.nbytes == 0:
            return np.empty(self.shape, _NUMPY[self.dtype])
        memory = (ctypes.c_uint8 * self.nbytes).from_address(self.pointer)
        memory._worldrt_owner = self.owner  # type: ignore[attr-defined]  # the view outlives this object
        array: np.ndarray[Any, Any] = np.frombuffer(memoryview(memory), _NUMPY[self.dtype]).reshape(self.shape)
        if isinstance(self.owner, np.ndarray) and not self.owner.flags.writeable:
            array.flags.writeable = False
        return array

    def reshape(self, shape: Shape) -> Buffer:
        """The same memory under another shape. Raises `ShapeError` where the sizes differ."""
        if size_bytes(shape, self.dtype) != self.nbytes:
            raise ShapeError(f"cannot see {self.shape} as {shape}")
        return Buffer(self.pointer, shape, self.dtype, self.owner, self.device)

    def __getitem__(self, index: slice) -> Buffer:
        """Rows of the first dimension, without a copy."""
        start, stop, step = index.indices(self.shape[0])
        if step != 1 or stop < start:
            raise ShapeError("a buffer is cut by a plain slice of its first dimension")
        row = self.nbytes // max(1, self.shape[0])
        return Buffer(self.pointer + start * row, (stop - start, *self.shape[1:]), self.dtype, self.owner, self.device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device == "cpu":
            raise AttributeError("a host buffer has no CUDA array interface")
        kind = "<V2" if self.dtype == "bfloat16" else np.dtype(self.dtype).str
        return {
            "shape": self.shape,
            "typestr": kind,
            "data": (self.pointer, False),
            "version": 3,
            "strides": None,
        }


class Device(Protocol):
    """Memory and order of execution. All work that is given to one device runs in the order it was given."""

    name: str

    def empty(self, shape: Shape, dtype: str) -> Buffer:
        """Fresh memory; its contents are undefined."""
        ...

    def upload(self, target: Buffer, array: np.ndarray[Any, Any]) -> None:
        """Copy a host array of the same shape into a buffer."""
        ...

    def download(self, source: Buffer) -> np.ndarray[Any, Any]:
        """A fresh host array with the buffer's values, after all work given before."""
        ...

    def copy(self, target: Buffer, source: Buffer) -> None:
        """Copy between two buffers of this device."""
        ...

    def synchronize(self) -> None:
        """Wait for all work given so far."""
        ...


class HostDevice:
    """The CPU: buffers are numpy memory, 64-byte aligned, and work is done when a call returns."""

    name = "cpu"

    def empty(self, shape: Shape, dtype: str) -> Buffer:
        memory = np.zeros(size_bytes(shape, dtype) + 64, np.uint8)
        start = memory.ctypes.data
        return Buffer(start + -start % 64, shape, dtype, owner=memory)

    def upload(self, target: Buffer, array: np.ndarray[Any, Any]) -> None:
        check_upload(target, array)
        np.copyto(target.numpy(), array, casting="no")

    def download(self, source: Buffer) -> np.ndarray[Any, Any]:
        return np.array(source.numpy())

    def copy(self, target: Buffer, source: Buffer) -> None:
        self.upload(target, source.numpy())

    def synchronize(self) -> None:
        pass


def check_upload(target: Buffer, array: np.ndarray[Any, Any]) -> None:
    """Raises `ShapeError` unless the array has the buffer's shape and dtype."""
    if array.shape != target.shape or array.dtype != _NUMPY[target.dtype]:
        raise ShapeError(f"expected {target.dtype}{list(target.shape)}, got {array.dtype}{list(array.shape)}")


def host_buffer(array: np.ndarray[Any, Any], dtype: str | None = None) -> Buffer:
    """A buffer over a contiguous numpy array, without a copy; `dtype` names it where numpy cannot (`bfloat16`)."""
    if not array.flags.c_contiguous:
        raise ShapeError("a buffer wants a contiguous array; use numpy.ascontiguousarray")
    return Buffer(array.ctypes.data, array.shape, dtype or array.dtype.name, owner=array)


def open_device(name: str) -> Device:
    """`cpu`, `cuda` or `cuda:1`. Raises `BackendError` where the device cannot be had."""
    if name == "cpu":
        return HostDevice()
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise BackendError(f"device '{name}': expected cpu, cuda or cuda:<number>")
    from worldrt.engine.cuda import CudaDevice

    return CudaDevice(int(index or 0))
