"""A real GPU against what the runtime expects of a device."""

import numpy as np
import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import BackendError, DeviceMemoryError

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16", "int64", "uint8", "bool"])
def test_what_goes_up_comes_down(gpu, dtype):
    values = (np.random.default_rng(0).standard_normal((3, 5, 7)) * 50).astype(dtype)
    buffer = gpu.empty(values.shape, "bfloat16" if dtype == "uint16" else dtype)
    gpu.upload(buffer, values)
    assert np.array_equal(gpu.download(buffer), values)
    other = gpu.empty(values.shape, buffer.dtype)
    gpu.copy(other, buffer)
    assert np.array_equal(gpu.download(other[1:2]), values[1:2])


def test_addresses_suit_vector_loads_and_engines(gpu):
    assert all(gpu.empty((n,), "uint8").pointer % 256 == 0 for n in (1, 3, 1000))


def test_memory_comes_back(gpu):
    before = gpu.free_bytes()
    large = gpu.empty((1 << 28,), "uint8")
    assert gpu.free_bytes() <= before - (1 << 27) and gpu.held_bytes >= 1 << 28
    del large
    assert gpu.held_bytes == 0 and gpu.free_bytes() > before - (1 << 27)


def test_more_than_there_is_is_an_error_that_says_what_helps(gpu):
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        gpu.empty((1 << 50,), "uint8")
    values = np.arange(6, dtype=np.float32)
    buffer = gpu.empty(values.shape, "float32")  # the device still works
    gpu.upload(buffer, values)
    assert np.array_equal(gpu.download(buffer), values)


def test_the_copy_stream_waits_for_events_only(gpu):
    source, target = gpu.pinned((1 << 20,), "float32"), gpu.empty((1 << 20,), "float32")
    source.numpy()[...] = np.arange(1 << 20)
    copied = gpu.event()
    gpu.copy_beside(target, source)
    copied.record(gpu.copy_stream)
    copied.hold(gpu.stream)
    assert np.array_equal(gpu.download(target), np.arange(1 << 20, dtype=np.float32))
    assert copied.reached


def test_events_take_time(gpu):
    start, end = gpu.event(timed=True), gpu.event(timed=True)
    a, b = (gpu.empty((1 << 26,), "uint8") for _ in range(2))
    start.record(gpu.stream)
    for _ in range(20):
        gpu.copy(a, b)
    end.record(gpu.stream)
    gpu.synchronize()
    assert 0 < end.ms_since(start) < 1000


def test_the_device_knows_its_name(gpu):
    target = gpu.target
    (capability,) = target.compute_capabilities
    assert target.gpu_name and target.sm_count > 0 and float(capability) >= 5


def test_an_absent_device_is_an_error(gpu):
    with pytest.raises(BackendError, match="CUDA device"):
        CudaDevice(99)
