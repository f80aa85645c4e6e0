"""`nano-matrix` as bundles: manifest, command line, blocks one after the other, and engines ahead of time."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from worldrt.engine.build import build_plan
from worldrt.engine.bundle import Chunk, Control, Stream, load_bundle, read_manifest, write_manifest
from worldrt.engine.jobs import Wish, jobs_of
from worldrt.engine.plans import Target
from worldrt.engine.weights import open_weights
from worldrt.export import cli
from worldrt.export.families.matrix.control import SYMBOLS
from worldrt.export.families.matrix.denoiser import Denoise, Schedule
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.nano import make_checkpoint
from worldrt.export.families.matrix.variants import NANO, variant
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle
from worldrt.export.verify import random_inputs
from worldrt.runtime import cli as run_cli
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape

SMALL = variant(NANO)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The layout of a published stage below its root."""
    root = tmp_path_factory.mktemp("matrix")
    make_checkpoint(root, seed=3)
    return root


@pytest.fixture(scope="module")
def half(checkpoint, tmp_path_factory):
    """In float16, made by the command line."""
    folder = tmp_path_factory.mktemp("half") / "bundle"
    args = ("--model", NANO, "--checkpoint", checkpoint, "--components", "world", "text", "--precision", "fp16")
    assert cli.main([*map(str, args), "--no_torch_program", "--jobs", "1", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def blocks(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks") / "bundle"
    options = Options(NANO, form="block", components=("world",))
    report = export_bundle(options, folder, family="matrix", checkpoint=checkpoint, torch_program=False)
    assert all(row.passed for row in report.verified) and len(report.verified) == 10 + 6 + 6 + 1
    return load_bundle(folder)


def test_the_manifest_says_all_that_a_runtime_needs(half, tmp_path):
    m = load_bundle(half).manifest
    world = m.denoisers["world"]
    assert (m.family, m.variant, world.form, world.precision, world.blocks) == ("matrix", NANO, "whole", "float16", 4)
    assert {name: c.bind for name, c in world.conditions.items()} == {
        "level": "frame", "control": "frame", "text": "clip", "position": "constant",
    }  # fmt: skip
    assert (world.sampler.kind, world.sampler.steps, world.sampler.sigma_max) == ("phased_ddim", 4, 999)
    assert world.stream == Stream(groups=4, group=1) and world.guidance.scale == 1 and world.frames == {"16": 17}
    assert world.control == Control(SYMBOLS, "world/control.safetensors", 48, 2, 4)
    assert world.diffusion is not None and world.diffusion.precision == "float32" and world.levels is None
    table = load_file(half / world.control.embeddings)["embeddings"]
    assert table.shape == (len(SYMBOLS), 48) and table.dtype == np.float32
    assert (m.text.max_tokens, m.text.unconditional) == (64, "empty")
    write_manifest(tmp_path, m)
    assert read_manifest(tmp_path) == m


def test_a_chunk_without_an_entry_is_a_latent():
    from worldrt.engine.bundle import Vae

    vae = Vae("float32", (), {}, 16, 8, 4, (0.0,) * 16, (1.0,) * 16, chunks={"decode_first": Chunk(2, 8)})
    assert vae.chunk("decode_first") == Chunk(2, 8)
    assert (vae.chunk("encode_first"), vae.chunk("decode_next")) == (Chunk(1, 1), Chunk(1, 4))


def test_the_bundle_can_be_inspected(half, capsys):
    assert run_cli.main(["inspect", str(half), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "matrix" and found["components"]["world"]["graphs"]["denoise"]["state"] == "yes"


def test_blocks_one_after_the_other_are_the_network(blocks):
    """By ONNX Runtime, each with its own weights, among them those of the control block behind it."""
    component = blocks.manifest.denoisers["world"]
    store = open_weights(blocks, component)
    dit = DiT(SMALL.dit).requires_grad_(False)
    dit.load_state_dict({key: torch.from_numpy(store[key].numpy().copy()) for key in dit.state_dict()})
    axes = {"batch": 1, "frames": 5, "window_frames": 5, "rows": 3, "columns": 5, "tokens": 15, "text": 6}
    known = random_inputs(component.graphs["embed"].inputs, axes)
    known["level"] = np.array([SMALL.fixed_levels()], np.float32)
    given = [torch.from_numpy(known[name]) for name in ("x", "text", "control", "position", "level")]
    expected = Denoise(dit, Schedule.of(SMALL.diffusion))(*given).numpy()

    names = ["embed", *(component.block_graph(i) for i in range(component.blocks - 1)), "head"]
    assert names == ["embed", "block", "block", "block_control", "head"]
    bound = DenoiserModel(Opener(blocks, Execution()), component).bind(DenoiserShape(16, 5, 6, 10, 6), guided=False)
    bound.fill_text(known["text"][0], None)
    bound.fill_levels(known["level"])
    for name in ("x", "control", "position"):
        bound.fill(name, known[name])
    bound.run()
    assert np.abs(bound.cond.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_flags_of_worlds_are_refused_for_other_families(capsys, tmp_path):
    for flag in (["--fold_levels"], ["--control_sentences", str(tmp_path)]):
        assert cli.main(["--model", "nano", *flag, "-o", str(tmp_path / "b")]) == 2
        assert "it is about The Matrix" in capsys.readouterr().err


@pytest.mark.tensorrt
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT-RTX")
@pytest.mark.parametrize("graph", ["world/denoise", "text/encode"])
def test_graphs_compile_ahead_of_time(half, graph, tmp_path):
    """For SM89 in FP16, with joint attention in fused kernels."""
    bundle = load_bundle(half)
    name = graph.partition("/")[0]
    store = open_weights(bundle, bundle.manifest.components()[name])
    wish = Wish("tensorrt_rtx", Target(("8.9",)))
    job = next(j for j in jobs_of(bundle, name, store, wish) if j.name == graph)
    report = build_plan(job, tmp_path / "p.plan")
    assert report.plan_bytes == (tmp_path / "p.plan").stat().st_size
    attentions = {"world/denoise": SMALL.dit.blocks, "text/encode": SMALL.t5.layers}[graph]
    assert sum(" _gemm_mha" in line for line in report.layers) >= attentions, "attention is not fused"
