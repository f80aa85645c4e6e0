"""The CUDA device against a runtime that records its calls: this tests order and lifetime, not a driver."""

from types import SimpleNamespace

import numpy as np
import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import open_device
from worldrt.engine.errors import BackendError, ShapeError


class RecordingRuntime:
    """Memory is host memory; every call is written down."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="h2d", cudaMemcpyDeviceToHost="d2h", cudaMemcpyDeviceToDevice="d2d"
    )

    def __init__(self, devices=1):
        self.devices, self.calls, self.memory = devices, [], {}

    def cudaGetDeviceCount(self):
        return 0, self.devices

    def cudaSetDevice(self, index):
        return (0,)

    def cudaStreamCreateWithFlags(self, flags):
        return 0, 77

    def cudaMalloc(self, nbytes):
        array = np.zeros(nbytes, np.uint8)
        self.memory[array.ctypes.data] = array
        self.calls.append(("malloc", nbytes))
        return 0, array.ctypes.data

    def cudaFree(self, pointer):
        del self.memory[pointer]
        return (0,)

    def cudaMemcpyAsync(self, target, source, nbytes, kind, stream):
        import ctypes

        ctypes.memmove(target, source, nbytes)
        self.calls.append((kind, nbytes, stream))
        return (0,)

    def cudaStreamSynchronize(self, stream):
        self.calls.append(("synchronize", stream))
        return (0,)


def test_round_trip_copies_on_the_stream_and_waits_once():
    runtime = RecordingRuntime()
    device = CudaDevice(0, runtime)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    a, b = device.empty((2, 3), "float32"), device.empty((2, 3), "float32")
    device.upload(a, values)
    device.copy(b, a)
    np.testing.assert_array_equal(device.download(b), values)
    assert runtime.calls[2:] == [("h2d", 24, 77), ("d2d", 24, 77), ("d2h", 24, 77), ("synchronize", 77)]
    assert a.__cuda_array_interface__["data"] == (a.pointer, False)
    with pytest.raises(BackendError, match="no numpy view"):
        a.numpy()
    with pytest.raises(ShapeError, match=r"expected float32\[2, 3\], got float64\[2, 3\]"):
        device.upload(a, values.astype(np.float64))


def test_memory_is_given_back_with_the_last_view():
    runtime = RecordingRuntime()
    device = CudaDevice(0, runtime)
    buffer = device.empty((4, 8), "bfloat16")
    row = buffer[1:2]
    assert row.pointer == buffer.pointer + 16
    del buffer
    assert len(runtime.memory) == 1
    del row
    assert not runtime.memory


def test_a_device_that_is_not_there():
    with pytest.raises(BackendError, match=r"cuda:2: this machine has 1 CUDA device\(s\)"):
        CudaDevice(2, RecordingRuntime())
    with pytest.raises(BackendError, match="expected cpu, cuda or cuda:<number>"):
        open_device("tpu")


def test_an_error_code_becomes_an_error():
    runtime = RecordingRuntime()
    device = CudaDevice(0, runtime)
    runtime.cudaMalloc = lambda nbytes: (2, None)
    with pytest.raises(BackendError, match="cudaMalloc failed: 2"):
        device.empty((1,), "float32")
