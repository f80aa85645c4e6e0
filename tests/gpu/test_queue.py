"""The queue on a real GPU: the bits of the host, by whole rows that are launched as CUDA graphs."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.graphs import StepGraphs
from worldrt.engine.session import Call
from worldrt.kernels import cuda
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.queue.device import DeviceQueue
from worldrt.runtime.queue.device_slots import Windows
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.samplers_vp import dpm_sde, phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.plan import Plan

pytestmark = pytest.mark.gpu
SHAPE = (1, 16, 60, 90)
PLANS = {
    "stage 4": (methods.swin_dpm(4, 4, 1), phased_ddim(4, 4)),
    "stage 3": (methods.swin_dpm(20, 4, 4), dpm_sde(20)),
    "lookahead": (methods.fifo(2, 4), dpm_sde(8)),
}
HALF = (0.5, 0.0, 0.0, 0.0)  # the model: x0 is half of x


class Half:
    """A denoiser that our own kernel stands for."""

    def __init__(self, device):
        if cuda.missing():
            pytest.skip(cuda.missing())
        self.device, self.graphs = device, []

    def bind(self, frames):
        shape = (1, SHAPE[1], frames, *SHAPE[2:])
        inputs = {"x": self.device.empty(shape, "float32"), "level": self.device.empty((1, frames), "float32")}
        x0, rows = self.device.empty(shape, "float32"), self.device.empty((frames, 4), "float64")
        self.device.upload(rows, np.tile(HALF, (frames, 1)))

        def run():
            cuda.multistep_update(inputs["x"], inputs["x"], coefficients=rows, out=x0, stream=self.device.stream)

        self.graphs.append(StepGraphs(self.device, mode="on"))
        return BoundDenoiser(self.device, 1, inputs, (), (Call({}, run),), x0, None, graphs=self.graphs[-1])


@pytest.mark.parametrize("name", PLANS)
def test_rows_on_a_gpu_are_those_of_the_host_to_the_bit(gpu, name):
    schedule, table = PLANS[name]
    half, plan = Half(gpu), Plan(schedule)
    known = schedule.given + (schedule.slots if schedule.fill == "renoise" else 0)
    video = np.random.default_rng(0).normal(size=(1, SHAPE[1], known, *SHAPE[2:])).astype(np.float32) if known else None
    there = DeviceQueue(plan, table, Windows(half.device, half.bind), SHAPE, text=lambda: (None, None), seed=3)
    here = Queue(plan, table, lambda x, level, conditions: x * np.float32(0.5), SHAPE, seed=3)
    for queue in (there, here):
        queue.start(video)
    rows = schedule.steps + 3 * schedule.shift
    frames = [[frame.latent for _ in range(rows) for frame in queue.run()] for queue in (there, here)]
    assert len(frames[0]) > 2 and all(map(np.array_equal, *frames))
    assert all(graphs.off is None for graphs in half.graphs)
