"""CUDA memory and one stream, through cuda-python. Nothing is imported or initialised until a device is opened."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, check_upload
from worldrt.engine.errors import BackendError
from worldrt.engine.tensors import Shape, size_bytes


class CudaDevice:
    """One GPU and its stream. Copies and launches are ordered on `stream`; only `download` and `synchronize` wait.

    `runtime` is `cuda.bindings.runtime` or a twin of it for tests.
    """

    def __init__(self, index: int = 0, runtime: ModuleType | Any = None) -> None:
        self.name = f"cuda:{index}"
        self._rt = runtime if runtime is not None else _import_runtime()
        count = self._call("cudaGetDeviceCount")
        if index >= count:
            raise BackendError(f"{self.name}: this machine has {count} CUDA device(s)")
        self._call("cudaSetDevice", index)
        self.stream = int(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def empty(self, shape: Shape, dtype: str) -> Buffer:
        nbytes = max(1, size_bytes(shape, dtype))
        memory = _Memory(self, int(self._call("cudaMalloc", nbytes)))
        return Buffer(memory.pointer, shape, dtype, owner=memory, device=self.name)

    def upload(self, target: Buffer, array: np.ndarray[Any, Any]) -> None:
        check_upload(target, array)
        source = np.ascontiguousarray(array)
        self._copy(target.pointer, source.ctypes.data, target.nbytes, "cudaMemcpyHostToDevice")

    def download(self, source: Buffer) -> np.ndarray[Any, Any]:
        array = np.empty(source.shape, "uint16" if source.dtype == "bfloat16" else source.dtype)
        self._copy(array.ctypes.data, source.pointer, source.nbytes, "cudaMemcpyDeviceToHost")
        self.synchronize()
        return array

    def copy(self, target: Buffer, source: Buffer) -> None:
        self._copy(target.pointer, source.pointer, min(target.nbytes, source.nbytes), "cudaMemcpyDeviceToDevice")

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self.stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, getattr(self._rt.cudaMemcpyKind, kind), self.stream)

    def _call(self, name: str, *args: Any) -> Any:
        """Call the runtime; its error code becomes a `BackendError`, its one result is returned."""
        status, *results = getattr(self._rt, name)(*args)
        if int(status) != 0:
            raise BackendError(f"{self.name}: {name} failed: {getattr(status, 'name', status)}")
        return results[0] if results else None

    def release(self, pointer: int) -> None:
        """Give memory back; errors are ignored, the process may be ending."""
        self._rt.cudaFree(pointer)


class _Memory:
    """Frees its pointer when the last buffer over it is gone."""

    def __init__(self, device: CudaDevice, pointer: int) -> None:
        self.pointer = pointer
        self._device = device

    def __del__(self) -> None:
        self._device.release(self.pointer)


def _import_runtime() -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"CUDA needs cuda-python: pip install 'worldrt[gpu]' ({error})") from error
