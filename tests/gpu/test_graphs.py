"""CUDA graphs of real work: equal bits, new values, another address, and a capture that fails."""

import numpy as np
import pytest

from worldrt import kernels
from worldrt.engine.graphs import StepGraphs
from worldrt.kernels import cuda

pytestmark = pytest.mark.gpu
SHAPE = (1, 16, 2, 6, 8)


class Work:
    """x <- a x + x0 / 4 on the GPU and on the host; `a` is read on the device."""

    def __init__(self, gpu):
        if kernels.status().cuda_library is None:
            pytest.skip("the CUDA kernels are not built")
        self.gpu = gpu
        self.first, self.x0 = np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32)
        self.x, self.there, self.out = (gpu.empty(SHAPE, "float32") for _ in range(3))
        self.rows = gpu.empty((SHAPE[2], 4), "float64")
        gpu.upload(self.there, self.x0)

    def body(self):
        cuda.multistep_update(self.x, self.there, coefficients=self.rows, out=self.out, stream=self.gpu.stream)
        self.gpu.copy(self.x, self.out)

    def table(self, a):
        return np.tile(np.array([a, 0.25, 0.0, 0.0]), (SHAPE[2], 1))

    def given(self, a, run):
        self.gpu.upload(self.x, self.first)
        self.gpu.upload(self.rows, self.table(a))
        run()
        return self.gpu.download(self.x)

    def expected(self, a):
        return kernels.multistep_update(self.first, self.x0, coefficients=self.table(a))


def test_every_replay_gives_the_bits_of_the_host(gpu):
    work, graphs = Work(gpu), StepGraphs(gpu, mode="on")
    for a in (0.5, 0.5, 0.5, 0.75, -2.0):
        result = work.given(a, lambda: graphs.run("key", work.body))
        assert np.array_equal(result, work.expected(a))
    assert graphs.off is None


def test_another_address_is_another_graph(gpu):
    work, graphs = Work(gpu), StepGraphs(gpu, mode="on")
    for _ in range(3):
        work.given(0.5, lambda: graphs.run(work.x.pointer, work.body))
    old = work.x
    work.x = gpu.empty(SHAPE, "float32")
    for _ in range(3):
        assert np.array_equal(work.given(0.5, lambda: graphs.run(work.x.pointer, work.body)), work.expected(0.5))
    assert old.pointer != work.x.pointer and graphs.off is None


def test_a_capture_that_waits_fails_and_the_work_goes_on(gpu):
    work, graphs = Work(gpu), StepGraphs(gpu, mode="on")

    def waiting():
        work.body()
        gpu.synchronize()

    for _ in range(4):
        assert np.array_equal(work.given(0.5, lambda: graphs.run("key", waiting)), work.expected(0.5))
    assert "the capture failed" in graphs.off
