"""The nano Matrix as a world on a fake GPU: the pictures of the host, by latents that stay there."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from worldrt.engine import cuda as engine_cuda
from worldrt.engine.session import Session
from worldrt.runtime import components
from worldrt.runtime.live.model import Told
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.queue.conditions import Condition

from ...fakes.cuda import FakeCuda
from ...fakes.kernels import install_kernels


class GpuTorch(Session):
    """A torch module on live memory of the fake GPU, as work of its stream."""

    def __init__(self, graph, device, module, cuda):
        super().__init__(graph, device)
        self.module, self.cuda = module, cuda

    capture_refusal = None

    def _prepare(self, buffers):
        def tensor(name):
            buffer = buffers[name]
            memory = self.cuda.view(buffer.pointer, buffer.nbytes)
            return torch.from_numpy(memory.view(buffer.dtype).reshape(buffer.shape))

        @torch.no_grad()
        def work():
            weights = {weight.name: tensor(weight.name) for weight in self.graph.weights}
            made = torch.func.functional_call(self.module, weights, tuple(tensor(s.name) for s in self.graph.inputs))
            for spec, value in zip(self.graph.outputs, made if isinstance(made, tuple) else (made,), strict=True):
                tensor(spec.name).copy_(value)

        return lambda: self.cuda.enqueue(self.device.stream, work)


@pytest.mark.parametrize("form", ["whole", "block"])
def test_a_world_on_a_gpu_has_the_latents_of_the_host(nano_matrix_bundle, nano_matrix_blocks, form, stubs, monkeypatch):
    nano = nano_matrix_bundle if form == "whole" else nano_matrix_blocks
    stubs.run_by_torch(monkeypatch, nano.modules)
    world = World(Models.open([nano.folder]))
    told = Told(world.encode("a road"))
    video = np.random.default_rng(0).normal(size=(1, 16, 5, 4, 6)).astype(np.float32)

    def feed(frame):
        return Condition(frame + 1, world.condition(world.controls[0 if frame < 8 else 1]))

    def latents(queue):
        queue.start(video)
        return list(islice((frame.latent for _ in range(8) for frame in queue.run()), 8))

    expected = latents(world.queue(told, feed, 3))
    cuda = FakeCuda()
    install_kernels(monkeypatch, cuda)
    monkeypatch.setattr(engine_cuda, "_import_runtime", lambda: cuda)
    monkeypatch.setattr(
        components,
        "open_session",
        lambda b, p, graph, device, **_: GpuTorch(graph, device, nano.modules[graph.file], cuda),
    )
    there = World(Models.open([nano.folder], device="cuda", cuda_graphs="on"))
    for _ in range(2):  # the second one on what the first one bound
        got = latents(there.queue(told, feed, 3))
        for a, b in zip(got, expected, strict=True):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()
    assert cuda.calls["cudaGraphLaunch"] == 2 * 6 and not cuda.violations
