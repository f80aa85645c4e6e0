"""The CUDA device against a runtime without a GPU: this tests order, lifetime and messages, not a driver."""

import numpy as np
import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import open_device
from worldrt.engine.errors import BackendError, DeviceMemoryError, ShapeError
from worldrt.engine.plans import Target

from ..fakes.cuda import COPY, MAIN, FakeCuda


def test_round_trip_copies_on_the_stream_and_waits_once():
    runtime = FakeCuda(greedy=())
    device = CudaDevice(0, runtime)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    a, b = device.empty((2, 3), "float32"), device.empty((2, 3), "float32")
    device.upload(a, values)
    values_then = values.copy()
    values[...] = 0  # the copy has taken them
    device.copy(b, a)
    np.testing.assert_array_equal(device.download(b), values_then)
    calls = runtime.calls
    assert (calls["h2d"], calls["d2d"], calls["d2h"], calls["cudaStreamSynchronize"]) == (1, 1, 1, 1)
    assert a.__cuda_array_interface__["data"] == (a.pointer, False) and a.pointer % 256 == 0
    with pytest.raises(BackendError, match="no numpy view"):
        a.numpy()
    with pytest.raises(ShapeError, match=r"expected float32\[2, 3\], got float64\[2, 3\]"):
        device.upload(a, values.astype(np.float64))


def test_memory_is_given_back_with_the_last_view():
    runtime = FakeCuda()
    device = CudaDevice(0, runtime)
    buffer = device.empty((4, 8), "bfloat16")
    row = buffer[1:2]
    assert row.pointer == buffer.pointer + 16
    del buffer
    assert len(runtime.memory) == 1 and device.held_bytes == 64
    del row
    assert not runtime.memory and device.held_bytes == 0


def test_pinned_memory_is_host_memory_and_given_back_as_such():
    runtime = FakeCuda()
    device = CudaDevice(0, runtime)
    pinned = device.pinned((8,), "float32")
    pinned.numpy()[...] = np.arange(8)
    target = device.empty((8,), "float32")
    device.copy_beside(target, pinned)
    np.testing.assert_array_equal(device.download(target), np.arange(8, dtype=np.float32))
    del pinned
    assert runtime.calls["cudaFreeHost"] == 1 and not runtime.pinned


def test_an_event_orders_two_streams():
    """The copy stream takes its work first, and still waits for the mark."""
    runtime = FakeCuda(greedy=(COPY,))
    device = CudaDevice(0, runtime)
    target, pinned = device.empty((1,), "float32"), device.pinned((1,), "float32")
    pinned.numpy()[...] = 2
    device.upload(target, np.ones(1, np.float32))
    event = device.event()
    event.record(device.stream)
    assert not event.reached
    event.hold(device.copy_stream)
    device.copy_beside(target, pinned)
    assert (device.stream, device.copy_stream) == (MAIN, COPY)
    device.synchronize()
    assert event.reached and runtime.view(target.pointer, 4).view(np.float32)[0] == 2


def test_a_device_that_is_not_there():
    with pytest.raises(BackendError, match=r"cuda:2: this machine has 1 CUDA device\(s\)"):
        CudaDevice(2, FakeCuda())
    runtime = FakeCuda()
    runtime.fail["cudaGetDeviceCount"] = 35
    with pytest.raises(BackendError, match=r"cuda:0: no GPU can be used here \(35\); mend the driver"):
        CudaDevice(0, runtime)
    with pytest.raises(BackendError, match="expected cpu, cuda or cuda:<number>"):
        open_device("tpu")


def test_an_error_code_becomes_an_error():
    runtime = FakeCuda()
    device = CudaDevice(0, runtime)
    runtime.fail["cudaMalloc"] = 700
    with pytest.raises(BackendError, match="cudaMalloc failed: 700"):
        device.empty((1,), "float32")
    assert device.held_bytes == 0


def test_memory_that_is_short_says_what_would_help():
    device = CudaDevice(0, FakeCuda(total_bytes=1000))
    kept = device.empty((600,), "uint8")
    text = r"out of memory: asked for 0.00 GB more; .* of 0.00 GB are free.*--offload.*--gpu_memory"
    with pytest.raises(DeviceMemoryError, match=text):
        device.empty((600,), "uint8")
    assert device.held_bytes == kept.nbytes
    with pytest.raises(DeviceMemoryError, match="loading text/encode: cuda:0: out of memory"):
        device.expect(401, "loading text/encode")
    device.expect(400, "loading text/encode")


def test_a_limit_holds_for_buffers_and_claims():
    device = CudaDevice(0, FakeCuda(total_bytes=10_000), limit_bytes=1000)
    claim = device.claim(700)
    assert device.free_bytes() == 300
    with pytest.raises(DeviceMemoryError, match=r"the limit \(--gpu_memory\) is 0.00 GB"):
        device.empty((301,), "uint8")
    del claim
    assert device.empty((1000,), "uint8").nbytes == 1000


def test_pinned_memory_that_is_short():
    runtime = FakeCuda()
    device = CudaDevice(0, runtime)
    runtime.fail["cudaHostAlloc"] = 2
    with pytest.raises(DeviceMemoryError, match="pinned host memory"):
        device.pinned((4,), "uint8")


def test_the_gpu_as_plans_name_it():
    assert CudaDevice(0, FakeCuda()).target == Target(("8.9",), "Fake 9000", 128)


def test_streams_end_with_the_device():
    runtime = FakeCuda()
    device = CudaDevice(0, runtime)
    assert device.copy_stream
    del device
    assert runtime.calls["cudaStreamDestroy"] == 2


def test_scratch_grows_and_says_so():
    runtime = FakeCuda()
    scratch = CudaDevice(0, runtime).scratch
    assert (scratch.pointer, scratch.nbytes, scratch.generation) == (0, 0, 0)
    scratch.reserve(100)
    first = scratch.generation
    scratch.reserve(50)
    assert (scratch.nbytes, scratch.generation) == (100, first)
    scratch.reserve(200)
    assert scratch.nbytes == 200 and scratch.generation != first and len(runtime.memory) == 1
    scratch.drop()
    assert not runtime.memory
