"""Runs through engines on a fake GPU, where each engine computes by ONNX Runtime: all that is between the engines is
real, and results must be those of the `onnxruntime` backend, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.bundle import load_bundle
from worldrt.engine.errors import BackendError, DeviceMemoryError, ShapeError
from worldrt.engine.plans import Range
from worldrt.kernels import cuda as kernels_cuda
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.engines import Engines
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.pipelines.text2world import Text2World
from worldrt.runtime.request import Request
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.sampling import sample

from ..fakes.cuda import COPY, MAIN, FakeCuda
from ..fakes.trt import FakeTrt, install

SHAPE = DenoiserShape(channels=16, frames=3, height=4, width=6, text=7)
WHOLE_SHAPE = DenoiserShape(channels=16, frames=2, height=10, width=16, text=512)
PROFILE = {"rows": Range(1, 2, 3), "columns": Range(2, 3, 4), "tokens": Range(2, 6, 12), "text": Range(7, 7, 7)}
BLOCKS = 5
STEPS = 5  # and the clean evaluation


class Gpu:
    """A fake GPU and library, and denoisers on it: tiny ones in block form, and the nano video model as a whole."""

    def __init__(self, monkeypatch, plans, bundles, library="tensorrt", **cuda):
        self.cuda = FakeCuda(**cuda)
        self.trt = FakeTrt(self.cuda, library)
        install(monkeypatch, self.cuda, self.trt)
        self.plans, self.bundles, self.library = plans, bundles, library

    def model(self, form="block", guidance="batched", block_weights="inputs", profile=None, **execution):
        profile = profile or (PROFILE if form == "block" else {})
        engines = Engines(self.plans, profile, block_weights=block_weights)
        fields = {"backend": self.library, "device": "cuda", "engines": engines, "cuda_graphs": "on"} | execution
        return load(self.bundles(form), guidance=guidance, **fields)


def load(bundle, **execution):
    spec = list(bundle.manifest.denoisers.values())[-1]
    return DenoiserModel(Opener(bundle, Execution(**execution)), spec)


@pytest.fixture(scope="module")
def bundles(request):
    """By form; each is made when first asked for."""
    made = {}

    def get(form):
        if form not in made:
            block = form == "block"
            made[form] = request.getfixturevalue("tiny_blocks" if block else "nano_bundle")
            made[form] = made[form] if block else load_bundle(made[form])
        return made[form]

    return get


@pytest.fixture
def gpu(monkeypatch, tmp_path, bundles):
    return lambda *args, **options: Gpu(monkeypatch, tmp_path / "plans", bundles, *args, **options)


@pytest.fixture(scope="module")
def expected(bundles):
    """States of runs by ONNX Runtime, by form and guidance."""
    kept = {}

    def make(form, guidance, seed=0):
        if (form, guidance, seed) not in kept:
            kept[form, guidance, seed] = states(load(bundles(form), guidance=guidance, options={"threads": 1}), seed)
        return kept[form, guidance, seed]

    return make


def states(model, seed=0):
    """The state after each row of a run of its own."""
    shape = WHOLE_SHAPE if model.spec.form == "whole" else SHAPE
    return run(model.bind(shape, guided=True), seed)


def run(bound, seed=0, g=7.0):
    rng = np.random.default_rng(seed)
    _, channels, frames, height, width = bound.x.shape
    latents = (1, channels, frames, height, width)
    bound.fill_text(*rng.standard_normal((2, *bound.texts[0].shape[1:])).astype(np.float32))
    bound.fill("position", np.arange(frames, dtype=np.float32))
    bound.fill("clean", rng.standard_normal(latents).astype(np.float32))
    bound.fill("mask", np.eye(1, frames, dtype=np.float32))
    loop = sample(bound, rectified_flow_ab2(STEPS, 80.0, 0.002), initial_noise(latents, seed, 80.0), guidance=g)
    made = [bound.device.download(bound.x) for _ in loop]
    assert len(made) == STEPS + 1 and np.abs(made[-1]).max() > 0.1
    return made


def same(actual, expected):
    assert all(np.array_equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("graphs", ["on", "off"])
@pytest.mark.parametrize("guidance", ["batched", "sequential"])
@pytest.mark.parametrize(("form", "weights"), [("whole", "auto"), ("block", "inputs"), ("block", "constants")])
def test_every_form_samples_as_onnx_runtime(gpu, expected, form, weights, guidance, graphs):
    gpu = gpu()
    model = gpu.model(form, guidance, weights, cuda_graphs=graphs)
    same(states(model), expected(form, guidance))
    assert len(gpu.trt.builds) == {"auto": 1, "inputs": 3, "constants": 2 + BLOCKS - 1}[weights]
    launched = {"on": (1, STEPS), "off": (0, 0)}[graphs]
    assert (gpu.cuda.calls["cudaGraphInstantiate"], gpu.cuda.calls["cudaGraphLaunch"]) == launched
    assert not gpu.cuda.violations


def test_an_engine_of_rtx_samples_the_same(gpu, expected):
    gpu = gpu("tensorrt_rtx")
    same(states(gpu.model()), expected("block", "batched"))
    assert gpu.cuda.calls["cudaGraphLaunch"] == STEPS


def test_a_step_in_steady_state_is_two_copies_and_a_launch(gpu):
    """No wait, no allocation, nothing from the host."""
    gpu = gpu()
    bound = gpu.model().bind(SHAPE, guided=True)
    run(bound)
    loop = sample(bound, rectified_flow_ab2(8, 80.0, 0.002), initial_noise(SHAPE.latents(), 0, 80.0), guidance=7.0)
    next(loop)
    gpu.cuda.calls.clear()
    for _ in range(6):
        next(loop)
    assert gpu.cuda.calls == {"cudaMemcpyAsync": 12, "d2d": 12, "cudaGraphLaunch": 6}


def test_clips_of_one_shape_share_buffers_and_graphs(gpu, expected):
    gpu = gpu()
    model = gpu.model()
    for seed in (0, 1):
        same(run(model.bind_again(SHAPE, guided=True), seed), expected("block", "batched", seed))
    assert gpu.cuda.calls["cudaGraphInstantiate"] == 1
    held = model.device.held_bytes
    other = DenoiserShape(16, 2, 4, 6, 7)
    model.bind_again(other, guided=True)
    assert model.device.held_bytes < held
    same(run(model.bind_again(SHAPE, guided=True)), expected("block", "batched"))


def test_guidance_and_scratch_are_part_of_what_is_captured(gpu, expected):
    """Another guidance, and scratch memory at another place, are captured anew; the first ones come back."""
    gpu = gpu()
    model = gpu.model()
    bound = model.bind(SHAPE, guided=True)
    run(bound)
    run(bound, g=3.0)
    assert gpu.cuda.calls["cudaGraphInstantiate"] == 2
    same(run(bound), expected("block", "batched"))
    assert gpu.cuda.calls["cudaGraphInstantiate"] == 2
    model.device.scratch.reserve(model.device.scratch.nbytes + 1)
    same(run(bound), expected("block", "batched"))
    assert gpu.cuda.calls["cudaGraphInstantiate"] == 3 and not gpu.cuda.violations


def test_a_capture_that_fails_changes_no_result(gpu, expected, caplog):
    gpu = gpu()
    bound = gpu.model().bind(SHAPE, guided=True)
    gpu.cuda.fail["cudaGraphInstantiate"] = 2
    same(run(bound), expected("block", "batched"))
    assert gpu.cuda.calls["cudaGraphLaunch"] == 0 and caplog.text.count("without a CUDA graph") == 1


@pytest.mark.parametrize("greedy", [(MAIN, COPY), (COPY,), (MAIN,), ()])
@pytest.mark.parametrize("guidance", ["batched", "sequential"])
@pytest.mark.parametrize(("short_blocks", "resident"), [(0.5, 1), (1.5, 0)])
def test_blocks_come_to_the_device_in_turn(gpu, expected, short_blocks, resident, guidance, greedy):
    """Where room for some of four blocks is missing, whichever stream is ahead; the copies are in the CUDA graph."""
    whole = gpu().model(guidance=guidance)
    kept = whole.bind(SHAPE, guided=True)
    need, block = whole.device.held_bytes, whole._blocks.block_bytes
    assert whole._blocks.resident == BLOCKS - 1 and kept.blocks is whole._blocks
    gpu = gpu(greedy=greedy)
    model = gpu.model(guidance=guidance, gpu_memory_gb=(need - short_blocks * block) / 1e9)
    bound = model.bind(SHAPE, guided=True)
    assert model._blocks.resident == resident and len(gpu.cuda.pinned) == BLOCKS - 1 - resident
    assert model.device.held_bytes <= model.device.limit_bytes
    same(run(bound), expected("block", guidance))
    assert gpu.cuda.calls["cudaGraphLaunch"] == STEPS and not gpu.cuda.violations


def test_a_larger_clip_makes_blocks_leave_the_device(gpu):
    gpu = gpu()
    model = gpu.model()
    small = DenoiserShape(16, 1, 4, 6, 7)
    model.bind_again(small, guided=True)
    model.device.limit_bytes = model.device.held_bytes + 1000
    assert model._blocks.resident == BLOCKS - 1
    run(model.bind_again(SHAPE, guided=True))
    assert model._blocks.resident < BLOCKS - 1 and model.device.held_bytes <= model.device.limit_bytes


def test_too_little_memory_says_what_would_help(gpu):
    with pytest.raises(DeviceMemoryError, match="--gpu_memory"):
        gpu().model(gpu_memory_gb=1e-5).bind(SHAPE, guided=True)


def test_streamed_weights_of_the_whole_form_are_not_captured(gpu, expected, caplog):
    gpu = gpu()
    model = gpu.model("whole", gpu_memory_gb=0.03)  # less than twice the weights
    (job,) = gpu.trt.builds
    assert job.options.weight_streaming
    bound = model.bind(WHOLE_SHAPE, guided=True)
    session = model.sessions["denoise"]
    session._engine.engine._budget, session._streams = 0, True  # as if there were room for none
    same(run(bound), expected("whole", "batched"))
    assert gpu.cuda.calls["cudaGraphInstantiate"] == 0 and "weights are streamed" in caplog.text


def test_a_size_outside_the_profile_says_how_to_have_it(gpu):
    model = gpu().model(profile=PROFILE | {"frames": Range(1, 1, 2), "columns": Range(2, 2, 2)})
    text = (
        r"embed.onnx: axis 'frames': the engine takes 1 to 2, got 3; axis 'columns': the engine takes 2 to 2, got 3.*"
        r"--profile frames=1:3:3 columns=2:3:3"
    )
    with pytest.raises(ShapeError, match=text):
        model.bind(SHAPE, guided=True)


class Runs:
    """Whole runs of the nano bundle."""

    request = Request(prompt="a red car", steps=2, width=128, height=80, num_frames=9)

    def __init__(self, bundle):
        self.bundle = bundle
        self.expected = self.frames(options={"threads": 1})

    def frames(self, **execution):
        with Text2World.open(self.bundle, **execution) as world:
            return list(world(self.request))


@pytest.fixture(scope="module")
def runs(nano_bundle):
    return Runs(nano_bundle)


@pytest.mark.parametrize(
    ("library", "execution"),
    [
        ("tensorrt", {"cuda_graphs": "on"}),
        ("tensorrt", {"guidance": "sequential", "offload": True}),
        ("tensorrt_rtx", {"cuda_graphs": "on", "gpu_memory_gb": 0.08}),
    ],
)
def test_a_video_from_text_is_that_of_onnx_runtime(runs, monkeypatch, tmp_path, library, execution):
    cuda = FakeCuda()
    trt = FakeTrt(cuda, library)
    install(monkeypatch, cuda, trt)
    engines = Engines(tmp_path / "plans")
    expected = (
        runs.expected if "guidance" not in execution else runs.frames(guidance="sequential", options={"threads": 1})
    )
    same(runs.frames(backend=library, device="cuda", engines=engines, **execution), expected)
    assert not cuda.violations and len(trt.builds) == 7


def test_without_the_kernels_of_a_step_nothing_is_begun(runs, monkeypatch, tmp_path):
    cuda = FakeCuda()
    trt = FakeTrt(cuda, "tensorrt")
    install(monkeypatch, cuda, trt)
    monkeypatch.setattr(kernels_cuda, "missing", lambda: "not built")
    with pytest.raises(BackendError, match="a step needs the CUDA kernels: not built; or use --device cpu"):
        runs.frames(backend="tensorrt", device="cuda", engines=Engines(tmp_path / "plans"))
    assert not trt.builds and not cuda.memory
