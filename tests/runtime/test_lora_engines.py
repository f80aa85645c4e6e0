"""LoRAs over engines, on a fake GPU whose engines compute by ONNX Runtime: one plan that is refitted at each load."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from worldrt.engine.bundle import load_bundle
from worldrt.engine.lora import LoraChoice
from worldrt.engine.overlay import WeightChange
from worldrt.engine.plans import Range
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.engines import Engines

from ..fakes.cuda import FakeCuda
from ..fakes.trt import FakeTrt, install

SHAPE = DenoiserShape(channels=16, frames=1, height=4, width=6, text=5)
PROFILE = {"rows": Range(1, 2, 3), "columns": Range(2, 3, 4), "text": Range(5, 5, 5)}


@pytest.fixture
def loras(nano_bundle, tmp_path):
    """Two LoRAs of the queries of the first block."""
    key = "transformer_blocks.0.attn1.to_q.weight"
    rows, columns = load_file(nano_bundle / "checkpoint/text2image/diffusion_pytorch_model.safetensors")[key].shape
    made = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        halves = torch.randn(4, columns, generator=generator), torch.randn(rows, 4, generator=generator)
        names = (f"transformer.{key.removesuffix('.weight')}.lora_{side}.weight" for side in "AB")
        save_file(dict(zip(names, halves, strict=True)), tmp_path / f"{seed}.safetensors")
        made.append(WeightChange(loras=(LoraChoice(tmp_path / f"{seed}.safetensors"),)))
    return made


def x0(bundle, change, **execution):
    spec = bundle.manifest.denoisers["text2image"]
    opener = Opener(bundle, Execution(**execution), {"text2image": change})
    bound = DenoiserModel(opener, spec).bind(SHAPE, guided=True)
    rng = np.random.default_rng(0)
    bound.fill("x", rng.standard_normal(SHAPE.latents()))
    bound.fill("level", np.full((1, 1), 0.7))
    bound.fill("position", np.zeros(1))
    bound.fill_text(*rng.standard_normal((2, SHAPE.text, 128)).astype(np.float32))
    bound.run()
    return bound.device.download(bound.cond)


@pytest.mark.parametrize("library", ["tensorrt", "tensorrt_rtx"])
def test_a_whole_engine_is_built_once_and_refitted_for_each_lora(monkeypatch, tmp_path, nano_bundle, loras, library):
    bundle = load_bundle(nano_bundle)
    cuda = FakeCuda()
    trt = FakeTrt(cuda, library)
    install(monkeypatch, cuda, trt)
    engines = Engines(tmp_path / "plans", PROFILE)
    changes = [WeightChange(), *loras, WeightChange()]
    made = [x0(bundle, change, backend=library, device="cuda", engines=engines) for change in changes]
    expected = [x0(bundle, change, options={"threads": 1}) for change in changes]
    for actual, reference in zip(made, expected, strict=True):
        assert np.array_equal(actual, reference)
    assert len({array.tobytes() for array in made}) == 3, "two LoRAs, and none before and after"
    assert [job.options.refit for job in trt.builds] == [False, True]
