"""Shortcuts and clips together on a fake GPU: the bits of ONNX Runtime, in CUDA graphs, with blocks coming in turn."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.errors import ShapeError
from worldrt.engine.plans import Range
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.sampling import sample
from worldrt.runtime.shortcuts import Shortcuts

from .test_engines import BLOCKS, PROFILE, SHAPE, Gpu, load, same

TABLE = rectified_flow_ab2(12, 80.0, 0.002)
ALL = {
    "cache": Shortcuts(0.6),
    "interval": Shortcuts(guidance_interval=(0.5, 20.0)),
    "adaptive": Shortcuts(adaptive_guidance=0.0),
    "all": Shortcuts(0.6, (0.5, 20.0), 0.99),
}


@pytest.fixture
def gpu(monkeypatch, tmp_path, tiny_blocks):
    return lambda **options: Gpu(monkeypatch, tmp_path / "plans", lambda form: tiny_blocks, **options)


def states(model, shortcuts, clips=1):
    shape = DenoiserShape(*SHAPE.latents()[1:], 7, clips)
    bound = model.bind(shape, guided=True, alone=shortcuts is not None and shortcuts.drops_guidance)
    return rows(bound, shortcuts)


def rows(bound, shortcuts):
    rng = np.random.default_rng(0)
    clips, *latents = bound.x.shape
    bound.fill_text(*rng.standard_normal((2, *bound.texts[0].shape)).astype(np.float32))
    bound.fill("position", np.arange(latents[1], dtype=np.float32))
    bound.fill("clean", rng.standard_normal(bound.x.shape).astype(np.float32))
    bound.fill("mask", np.eye(1, latents[1], dtype=np.float32).repeat(clips, 0))
    noise = np.concatenate([initial_noise((1, *latents), seed, 80.0) for seed in range(clips)])
    loop = sample(bound, TABLE, noise, guidance=7.0, shortcuts=shortcuts)
    return [bound.device.download(bound.x) for _ in loop]


@pytest.mark.parametrize("graphs", ["on", "off"])
@pytest.mark.parametrize("guidance", ["batched", "sequential"])
@pytest.mark.parametrize("kind", ALL)
def test_shortcuts_on_a_gpu_are_those_of_onnx_runtime(gpu, tiny_blocks, kind, guidance, graphs):
    expected = states(load(tiny_blocks, guidance=guidance, options={"threads": 1}), ALL[kind])
    gpu = gpu()
    same(states(gpu.model(guidance=guidance, cuda_graphs=graphs), ALL[kind]), expected)
    assert (gpu.cuda.calls["cudaGraphLaunch"] > 0) == (graphs == "on") and not gpu.cuda.violations


@pytest.mark.parametrize("kind", ["cache", "all"])
@pytest.mark.parametrize("guidance", ["batched", "sequential"])
@pytest.mark.parametrize(("short_blocks", "resident"), [(0.5, 1), (1.5, 0)])
def test_blocks_that_come_in_turn_can_be_left_out(gpu, tiny_blocks, short_blocks, resident, guidance, kind):
    """Where the first block stays on the device, it decides; else the input of the network does."""
    probe = gpu().model(guidance=guidance)
    kept = probe.bind(SHAPE, guided=True, alone=ALL[kind].drops_guidance)
    need, block = probe.device.held_bytes, probe._blocks.block_bytes
    assert kept.blocks.resident == BLOCKS - 1
    streamed = gpu()
    model = streamed.model(guidance=guidance, gpu_memory_gb=(need - short_blocks * block) / 1e9)
    bound = model.bind(SHAPE, guided=True, alone=ALL[kind].drops_guidance)
    assert model._blocks.resident == resident
    made = rows(bound, ALL[kind])
    assert not streamed.cuda.violations
    host = load(tiny_blocks, guidance=guidance, options={"threads": 1})
    there = host.bind(SHAPE, guided=True, alone=True)
    if not resident:
        there = type(there)(**{**vars(there), "hidden": None})
    same(made, rows(there, ALL[kind]))


def test_a_row_that_is_left_out_waits_for_the_device_once_for_each_frame_it_looks_at(gpu):
    """Two tensors of three frames, and no work from the host but two more copies and launches."""
    gpu = gpu()
    bound = gpu.model().bind(SHAPE, guided=True)
    rows(bound, Shortcuts(10.0))
    gpu.cuda.calls.clear()
    assert len(rows(bound, Shortcuts(10.0))) == len(TABLE)
    left_out = len(TABLE) - 2
    assert gpu.cuda.calls["cudaGraphLaunch"] >= 2 * left_out
    assert gpu.cuda.calls["d2h"] == 6 * (left_out + 1) + len(TABLE)  # and the states that this test looks at


def test_clips_together_on_a_gpu_are_those_of_onnx_runtime(gpu, tiny_blocks):
    expected = states(load(tiny_blocks, options={"threads": 1}), None, clips=2)
    gpu = gpu()
    same(states(gpu.model(clips=2), None, clips=2), expected)
    assert gpu.cuda.calls["cudaGraphLaunch"] == len(TABLE) - 1 and not gpu.cuda.violations


def test_engines_for_fewer_clips_say_which_profile_would_do(gpu):
    model = gpu().model(profile=PROFILE | {"batch": Range(1, 2, 2)})
    with pytest.raises(ShapeError, match=r"axis 'batch': the engine takes 1 to 2, got 4.*--profile batch="):
        states(model, None, clips=2)
