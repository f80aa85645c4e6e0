"""What the sampling loop costs beside the graphs: the null backend computes nothing."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from worldrt.engine.backends.null import NullSession
from worldrt.engine.bundle import load_bundle
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.sampling import sample


@pytest.fixture(params=[("text2image", "batched"), ("video2world", "batched"), ("video2world", "sequential")])
def model(nano, request):
    """The whole form and the block form of four blocks."""
    task, guidance = request.param
    opener = Opener(load_bundle(nano.folder), Execution(backend="null", guidance=guidance))
    return DenoiserModel(opener, nano.manifest.denoisers[task])


def steps(model, shape, rows=60):
    bound = model.bind(shape, guided=True)
    noise = np.zeros(shape.latents(), np.float32)
    return sample(bound, rectified_flow_ab2(rows, 80.0, 0.002), noise, guidance=7.0)


def test_nothing_of_tensor_size_is_allocated(model):
    shape = DenoiserShape(16, 1, 64, 64, 128)
    loop = steps(model, shape)
    next(loop)
    tracemalloc.start()
    for _ in range(20):
        next(loop)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * np.prod(shape.latents()) / 8, f"{peak} bytes"


def test_graphs_run_as_often_as_they_should(model):
    """One evaluation of each graph per row and call; instances of the block are four minus one."""
    shape = DenoiserShape(16, 1, 4, 4, 8)
    assert sum(1 for _ in steps(model, shape, rows=5)) == 6
    branches = 2 if model._guidance == "sequential" else 1
    for name, session in model.sessions.items():
        assert isinstance(session, NullSession)
        assert session.runs == 6 * branches * (model.spec.blocks - 1 if name == "block" else 1)


def test_python_per_step(model):
    """The goal is 100 us; the bound leaves room for a busy machine, and takes the best of several steps."""
    loop = steps(model, DenoiserShape(16, 1, 4, 4, 8))
    times = [time.perf_counter() for _ in loop]
    assert min(np.diff(times)) < 100e-6
