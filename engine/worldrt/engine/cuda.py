"""CUDA memory, streams and events, through cuda-python. Nothing is imported or initialised until a device is opened."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, check_upload
from worldrt.engine.errors import BackendError, DeviceMemoryError
from worldrt.engine.plans import Target
from worldrt.engine.scratch import Scratch
from worldrt.engine.tensors import Shape, size_bytes

_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
_NOT_READY = 600  # cudaErrorNotReady
_GB = 1e9


class CudaDevice:
    """One GPU, its stream, and a second stream for copies beside it. Only `download` and `synchronize` wait.

    `limit_bytes` is the most that buffers and `claim`s of this device may hold together. `runtime` is
    `cuda.bindings.runtime` or a twin of it for tests.
    """

    def __init__(self, index: int = 0, runtime: ModuleType | Any = None, *, limit_bytes: int | None = None) -> None:
        self.name, self.index = f"cuda:{index}", index
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._rt = runtime if runtime is not None else _import_runtime()
        self._late: list[tuple[int, bool]] | None = None  # memory that is to be freed when a capture ends
        status, count = self._rt.cudaGetDeviceCount()
        if int(status) != 0:
            reason = getattr(status, "name", status)
            raise BackendError(
                f"{self.name}: no GPU can be used here ({reason}); mend the driver, or run on the CPU: "
                "--backend onnxruntime --device cpu"
            )
        if index >= count:
            raise BackendError(f"{self.name}: this machine has {count} CUDA device(s)")
        self.make_current()
        self.stream = int(self.call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def make_current(self) -> None:
        """Have this thread's work go to this GPU; needed only where a process uses several in turn."""
        self.call("cudaSetDevice", self.index)

    @cached_property
    def copy_stream(self) -> int:
        """A stream for copies that run beside the work of `stream`; events put them in order."""
        return int(self.call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    @cached_property
    def scratch(self) -> Scratch:
        """The scratch memory that all engines of this device share."""
        return Scratch(self)

    def empty(self, shape: Shape, dtype: str) -> Buffer:
        """Memory whose address is a multiple of 256. Raises `DeviceMemoryError`."""
        nbytes = max(1, size_bytes(shape, dtype))
        with self.claim(nbytes) as held:
            memory = _Memory(self, int(self.call("cudaMalloc", nbytes)), held)
        return Buffer(memory.pointer, shape, dtype, owner=memory, device=self.name)

    def pinned(self, shape: Shape, dtype: str) -> Buffer:
        """Host memory that copies to the device run from without a wait. Raises `DeviceMemoryError`."""
        nbytes = max(1, size_bytes(shape, dtype))
        memory = _Memory(self, int(self.call("cudaHostAlloc", nbytes, 0)), None)
        return Buffer(memory.pointer, shape, dtype, owner=memory)

    def upload(self, target: Buffer, array: np.ndarray[Any, Any]) -> None:
        check_upload(target, array)
        source = np.ascontiguousarray(array)
        self._copy(target.pointer, source.ctypes.data, target.nbytes, "cudaMemcpyHostToDevice", self.stream)

    def download(self, source: Buffer) -> np.ndarray[Any, Any]:
        array = np.empty(source.shape, "uint16" if source.dtype == "bfloat16" else source.dtype)
        self._copy(array.ctypes.data, source.pointer, source.nbytes, "cudaMemcpyDeviceToHost", self.stream)
        self.synchronize()
        return array

    def copy(self, target: Buffer, source: Buffer) -> None:
        nbytes = min(target.nbytes, source.nbytes)
        self._copy(target.pointer, source.pointer, nbytes, "cudaMemcpyDeviceToDevice", self.stream)

    def copy_beside(self, target: Buffer, source: Buffer) -> None:
        """Copy `pinned` memory of the same size to the device on `copy_stream`."""
        self._copy(target.pointer, source.pointer, target.nbytes, "cudaMemcpyHostToDevice", self.copy_stream)

    def synchronize(self) -> None:
        self.call("cudaStreamSynchronize", self.stream)

    def event(self, *, timed: bool = False) -> Event:
        """A fresh event; with `timed` it can be asked for times."""
        return Event(self, int(self.call("cudaEventCreateWithFlags", 0 if timed else self._rt.cudaEventDisableTiming)))

    def free_bytes(self) -> int:
        """What can still be had: free memory of the GPU, or less where there is a limit."""
        free, _ = self.call("cudaMemGetInfo")
        return int(free) if self.limit_bytes is None else min(int(free), self.limit_bytes - self.held_bytes)

    def expect(self, nbytes: int, what: str) -> None:
        """Raises `DeviceMemoryError` where so much cannot be had now, before any of it is taken."""
        if nbytes > self.free_bytes():
            raise DeviceMemoryError(f"{what}: {self._short(nbytes)}")

    def claim(self, nbytes: int) -> Claim:
        """Count memory as held, until the claim goes. Raises `DeviceMemoryError` past the limit."""
        if self.limit_bytes is not None and self.held_bytes + nbytes > self.limit_bytes:
            raise self._short(nbytes)
        return Claim(self, nbytes)

    @cached_property
    def target(self) -> Target:
        """This GPU, as engine plans name it."""
        found = self.call("cudaGetDeviceProperties", self.index)
        name = found.name.decode(errors="replace") if isinstance(found.name, bytes) else str(found.name)
        return Target((f"{found.major}.{found.minor}",), name.rstrip("\0"), int(found.multiProcessorCount))

    @contextmanager
    def no_frees(self) -> Iterator[None]:
        """Keep memory that is let go within the block until its end: a capture does not survive `cudaFree`."""
        self._late = []
        try:
            yield
        finally:
            late, self._late = self._late, None
            for pointer, host in late:
                self.release(pointer, host=host)

    def begin_capture(self) -> None:
        """From here on work of `stream` is recorded, until `end_capture`."""
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", self.stream, mode)

    def end_capture(self) -> Any:
        """The recorded graph. Raises `BackendError` where something in the capture was not allowed."""
        return self.call("cudaStreamEndCapture", self.stream)

    def abandon_capture(self) -> None:
        """End a capture whose graph nobody wants."""
        status, graph = self._rt.cudaStreamEndCapture(self.stream)
        if int(status) == 0:
            self._rt.cudaGraphDestroy(graph)
        self._rt.cudaGetLastError()

    def destroy(self, function: str, handle: Any) -> None:
        """Call a function that ends a handle; errors are ignored, the process may be ending."""
        getattr(self._rt, function)(handle)

    def release(self, pointer: int, *, host: bool = False) -> None:
        """Give memory back; errors are ignored, the process may be ending."""
        if self._late is not None:
            self._late.append((pointer, host))
        elif host:
            self._rt.cudaFreeHost(pointer)
        else:
            self._rt.cudaFree(pointer)

    def call(self, name: str, *args: Any) -> Any:
        """Call the runtime. Its error code becomes a `BackendError`; its result, or a tuple of several, is returned."""
        status, *results = getattr(self._rt, name)(*args)
        if int(status) != 0:
            self._rt.cudaGetLastError()  # else a later launch reports it
        if int(status) == _OUT_OF_MEMORY:
            raise self._short(args[0] if name in ("cudaMalloc", "cudaHostAlloc") else 0, host=name == "cudaHostAlloc")
        if int(status) != 0:
            raise BackendError(f"{self.name}: {name} failed: {getattr(status, 'name', status)}")
        return tuple(results) if len(results) > 1 else results[0] if results else None

    def _copy(self, target: int, source: int, nbytes: int, kind: str, stream: int) -> None:
        self.call("cudaMemcpyAsync", target, source, nbytes, getattr(self._rt.cudaMemcpyKind, kind), stream)

    def _short(self, nbytes: int, *, host: bool = False) -> DeviceMemoryError:
        asked = f"asked for {nbytes / _GB:.2f} GB more" if nbytes else "a call needs more"
        if host:
            return DeviceMemoryError(f"{self.name}: out of pinned host memory ({asked}); give a larger --gpu_memory")
        status, *info = self._rt.cudaMemGetInfo()
        free = f", {info[0] / _GB:.2f} of {info[1] / _GB:.2f} GB are free" if int(status) == 0 else ""
        limit = "" if self.limit_bytes is None else f", the limit (--gpu_memory) is {self.limit_bytes / _GB:.2f} GB"
        return DeviceMemoryError(
            f"{self.name}: out of memory: {asked}; {self.held_bytes / _GB:.2f} GB are held here{free}{limit}. What "
            "helps: --offload, --gpu_memory GB (weights stay on the host), --cfg sequential, smaller or fewer frames"
        )

    def __del__(self) -> None:
        for stream in ("stream", "copy_stream"):
            if stream in self.__dict__:
                self._rt.cudaStreamDestroy(self.__dict__[stream])


class Event:
    """A mark in a stream that another stream or the host can look for."""

    def __init__(self, device: CudaDevice, handle: int) -> None:
        self._device, self._handle = device, handle

    def record(self, stream: int) -> None:
        """Set the mark after the work that the stream has been given so far."""
        self._device.call("cudaEventRecord", self._handle, stream)

    def hold(self, stream: int) -> None:
        """Work that is given to the stream from now on waits for the mark."""
        self._device.call("cudaStreamWaitEvent", stream, self._handle, 0)

    @property
    def reached(self) -> bool:
        """Whether the work before the mark is done. Does not wait."""
        status = self._device._rt.cudaEventQuery(self._handle)[0]
        if int(status) not in (0, _NOT_READY):
            raise BackendError(f"{self._device.name}: the GPU failed: {getattr(status, 'name', status)}")
        return int(status) == 0

    def ms_since(self, start: Event) -> float:
        """Milliseconds between two timed marks that are reached."""
        return float(self._device.call("cudaEventElapsedTime", start._handle, self._handle))

    def __del__(self) -> None:
        self._device.destroy("cudaEventDestroy", self._handle)


class Claim:
    """Memory that counts as held by a device. Used as a context, it goes only where the block fails."""

    def __init__(self, device: CudaDevice, nbytes: int) -> None:
        self._device, self._nbytes = device, nbytes
        device.held_bytes += nbytes

    def drop(self) -> None:
        self._device.held_bytes -= self._nbytes
        self._nbytes = 0

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.drop()

    def __del__(self) -> None:
        self.drop()


class _Memory:
    """Frees its pointer when the last buffer over it is gone: device memory with a claim, pinned memory without."""

    def __init__(self, device: CudaDevice, pointer: int, claim: Claim | None) -> None:
        self.pointer = pointer
        self._device, self._claim = device, claim

    def __del__(self) -> None:
        self._device.release(self.pointer, host=self._claim is None)


def _import_runtime() -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"CUDA needs cuda-python: pip install 'worldrt[gpu]' ({error})") from error
