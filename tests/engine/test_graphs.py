"""CUDA graphs of a step, against a runtime that records what is captured and forbids what the driver forbids."""

import logging

import numpy as np
import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import BackendError
from worldrt.engine.graphs import StepGraphs

from ..fakes.cuda import FakeCuda


class Work:
    """A step: y = y + x, on the device."""

    def __init__(self, **options):
        self.runtime = FakeCuda()
        self.device = CudaDevice(0, self.runtime)
        self.x, self.y = (self.device.empty((4,), "float32") for _ in range(2))
        self.device.upload(self.x, np.ones(4, np.float32))
        self.device.upload(self.y, np.zeros(4, np.float32))
        self.steps = StepGraphs(self.device, **options)
        self.bodies = 0
        self.trouble = lambda: None

    def body(self):
        self.bodies += 1
        x, y = (self.runtime.view(b.pointer, b.nbytes).view(np.float32) for b in (self.x, self.y))

        def add():
            y[...] += x

        self.runtime.enqueue(self.device.stream, add)
        self.trouble()

    def run(self, times, key="key"):
        for _ in range(times):
            self.steps.run(key, self.body)
        return self.device.download(self.y)[0]

    @property
    def captures(self):
        return self.runtime.calls["cudaGraphInstantiate"]

    @property
    def launches(self):
        return self.runtime.calls["cudaGraphLaunch"]


def test_the_first_run_is_eager_the_second_captures_the_rest_launch():
    work = Work(mode="on")
    assert work.run(1) == 1 and (work.captures, work.launches) == (0, 0)
    assert work.run(1) == 2 and (work.captures, work.launches) == (1, 1)
    assert work.run(8) == 10 and (work.captures, work.launches, work.bodies) == (1, 9, 2)
    assert not work.runtime.violations and work.runtime.calls["cudaGraphDestroy"] == 1


def test_values_change_without_a_new_capture():
    work = Work(mode="on")
    work.run(2)
    work.device.upload(work.x, np.full(4, 10, np.float32))
    assert work.run(1) == 12 and work.captures == 1


def test_steady_state_launches_and_does_nothing_else():
    work = Work(mode="on")
    work.run(2)
    work.runtime.calls.clear()
    for _ in range(5):
        work.steps.run("key", work.body)
    assert work.runtime.calls == {"cudaGraphLaunch": 5}


def test_another_key_is_another_graph_and_old_ones_go():
    work = Work(mode="on")
    for key in range(6):
        work.run(2, key)
    assert work.captures == 6 and work.runtime.calls["cudaGraphExecDestroy"] == 2
    work.run(1, 5)
    assert work.captures == 6
    work.run(2, 0)
    assert work.captures == 7


@pytest.mark.parametrize(
    "function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphLaunch"]
)
def test_a_capture_that_fails_is_warned_of_once_and_work_goes_on(function, caplog):
    work = Work(mode="on")
    work.run(1)
    original = type(work.runtime).cudaStreamEndCapture
    work.runtime.fail[function] = 901
    if function == "cudaStreamEndCapture":  # the stream leaves the capture even so
        work.runtime.fail.clear()
        work.runtime.cudaStreamEndCapture = lambda stream: original(work.runtime, stream) and (901, None)
    assert work.run(4) == 5
    assert len(caplog.records) == 1 and "without a CUDA graph" in caplog.text and work.captures <= 1
    assert work.runtime.capture is None and work.launches == (function == "cudaGraphLaunch")


@pytest.mark.parametrize("what", ["wait", "allocate", "own"])
def test_a_step_that_may_not_be_captured_runs_eagerly(what, caplog):
    """It waits, allocates, or fails by itself while it is captured."""
    work = Work(mode="on")
    work.run(1)

    def trouble():
        if what == "own" and work.runtime.capture is not None:
            raise RuntimeError("no kernel")
        if what == "wait":
            work.device.synchronize()
        if what == "allocate":
            work.device.empty((1,), "uint8")

    work.trouble = trouble
    assert work.run(3) == 4
    assert len(caplog.records) == 1 and work.runtime.capture is None


def test_an_error_of_the_step_itself_is_raised():
    work = Work(mode="on")
    work.run(1)

    def trouble():
        raise BackendError("the engine cannot run")

    work.trouble = trouble
    with pytest.raises(BackendError, match="the engine cannot run"):
        work.run(1)
    assert work.runtime.capture is None


def test_ctrl_c_in_a_capture_leaves_the_stream_usable():
    work = Work(mode="on")
    work.run(1)

    def trouble():
        work.trouble = lambda: None
        raise KeyboardInterrupt

    work.trouble = trouble
    with pytest.raises(KeyboardInterrupt):
        work.run(1)
    assert work.runtime.capture is None and work.run(1) == 2


def test_memory_that_goes_in_a_capture_is_freed_after_it():
    work = Work(mode="on")
    work.run(1)
    passing = [work.device.empty((4,), "uint8"), work.device.pinned((4,), "uint8")]
    work.trouble = passing.clear
    work.run(1)
    assert not work.runtime.violations and work.captures == 1
    assert len(work.runtime.memory) == 2


def test_off_and_refusals_capture_nothing(caplog):
    caplog.set_level(logging.INFO)
    for options, level in (
        ({"mode": "off"}, None),
        ({"mode": "auto", "refusal": lambda: "weights are streamed"}, "INFO"),
        ({"mode": "on", "refusal": lambda: "weights are streamed"}, "WARNING"),
    ):
        caplog.clear()
        work = Work(**options)
        assert work.run(4) == 4 and work.captures == 0
        assert [record.levelname for record in caplog.records] == ([level] if level else [])


def test_auto_captures_where_the_host_is_what_takes_time():
    work = Work(mode="auto")
    work.runtime.step_ms = 1e-3
    assert work.run(5) == 5
    assert (work.captures, work.bodies) == (1, 3)  # warm-up, the timed run, the capture


def test_auto_leaves_it_where_the_device_is_what_takes_time():
    work = Work(mode="auto")
    work.runtime.step_ms = 1e9
    assert work.run(6) == 6
    assert work.captures == 0 and "per step" in work.steps.off
    work.runtime.calls.clear()
    work.steps.run("key", work.body)
    assert not work.runtime.calls  # it is measured once


def test_auto_never_waits_for_its_measurement():
    """The device is behind the whole time: the host just goes on."""
    work = Work(mode="auto")
    work.runtime.streams.greedy = ()
    for _ in range(6):
        work.steps.run("key", work.body)
    assert work.captures == 0 and work.runtime.calls["cudaStreamSynchronize"] == 0
    assert work.device.download(work.y)[0] == 6
