"""The denoising loop against whole official pipelines, in both forms and both ways of guidance."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.sampling import sample

TOLERANCE = 1e-3  # of the golden set, for latents


def run(model, texts, latents, conditions, guidance):
    """All states, the last one being the result."""
    _, channels, frames, height, width = latents.shape
    shape = DenoiserShape(channels, frames, height, width, texts[0].shape[1])
    bound = model.bind(shape, guided=guidance != 0)
    bound.fill_text(*(text[0] for text in texts))
    for name, value in ({"position": np.arange(frames, dtype=np.float32)} | conditions).items():
        bound.fill(name, value)
    assert set(conditions) | {"position"} == model.conditions
    states = []
    for _ in sample(bound, rectified_flow_ab2(5, 80.0, 0.002), latents, guidance=guidance):
        states.append(np.array(bound.x.numpy()))
    return states


FORMS = [("whole", "batched"), ("whole", "sequential"), ("block", "batched"), ("block", "sequential")]


@pytest.mark.parametrize(("form", "guidance"), FORMS)
def test_video2world_pipeline(golden, golden_denoiser, form, guidance):
    g = golden("pipeline_v2w_t4")
    noise = initial_noise(g["out.latents"].shape, g.meta["seed"], 80.0)
    assert np.array_equal(noise, g["out.initial_state"])
    texts = (g["in.crossattn_emb"], g["in.neg_crossattn_emb"])
    conditions = {"clean": g["in.clean_latents"], "mask": g["in.condition_mask"][:, 0, :, 0, 0]}
    states = run(golden_denoiser(g, form, guidance), texts, noise, conditions, g.meta["guidance"])
    assert len(states) == 6
    for state, expected in zip(states, [*g["out.states"], g["out.latents"]], strict=True):
        assert np.abs(state - expected).max() < TOLERANCE
    assert np.array_equal(states[-1][:, :, 0], g["in.clean_latents"][:, :, 0])


@pytest.mark.parametrize(("form", "guidance"), FORMS)
@pytest.mark.parametrize("case", ["neg", "noneg"])
def test_text2image_pipeline(golden, golden_denoiser, case, form, guidance):
    g = golden("pipeline_t2i")
    noise = initial_noise(g[f"{case}.out.latents"].shape, g.meta["seed"], 80.0)
    assert np.array_equal(noise, g[f"{case}.out.initial_state"])
    cond = g["in.crossattn_emb"]
    uncond = g["in.neg_crossattn_emb"] if case == "neg" else np.zeros_like(cond)
    states = run(golden_denoiser(g, form, guidance), (cond, uncond), noise, {}, g.meta["guidance"])
    for state, expected in zip(states, [*g[f"{case}.out.states"], g[f"{case}.out.latents"]], strict=True):
        assert np.abs(state - expected).max() < TOLERANCE


def test_without_guidance_is_one_evaluation(golden, golden_denoiser):
    """g = 0 gives the conditional x0 alone, whatever the other text says."""
    g = golden("pipeline_t2i")
    noise = initial_noise(g["neg.out.latents"].shape, 1, 80.0)
    cond, other = g["in.crossattn_emb"], g["in.neg_crossattn_emb"]
    model = golden_denoiser(g, "whole", "sequential")
    alone = run(model, (cond, other), noise, {}, 0.0)[-1]
    same = run(model, (cond, cond), noise, {}, 4.0)[-1]
    assert np.abs(alone - same).max() < 1e-4
    shape = DenoiserShape(16, 1, 8, 12, 9)
    assert len(model.bind(shape, guided=False).calls) == 1


def test_views_not_copies(golden, golden_denoiser):
    g = golden("pipeline_t2i")
    shape = DenoiserShape(16, 1, 8, 12, 9)
    bound = golden_denoiser(g, "block", "batched").bind(shape, guided=True)
    x0 = bound.calls[-1]["x0"]
    assert (bound.cond.pointer, bound.uncond.pointer) == (x0.pointer, x0.pointer + x0.nbytes // 2)


def test_block_weights_are_the_mapped_file(golden, golden_denoiser):
    """No weight is copied: the buffers of the block instances lie in the memory map."""
    g = golden("pipeline_t2i")
    model = golden_denoiser(g, "block", "batched")
    owners = {id(buffer.owner) for n in ("embed", "block", "head") for buffer in model.weights(n).values()}
    assert len(owners) == 1


@pytest.mark.parametrize("guidance", ["batched", "sequential"])
@pytest.mark.parametrize("blocks", [2, 3, 6])
def test_block_form_is_the_whole_form(tiny_denoiser, blocks, guidance):
    """For odd and even numbers of blocks, over several steps."""
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((2, 1, 7, 24)).astype(np.float32)
    clean = rng.standard_normal((1, 16, 3, 4, 6)).astype(np.float32)
    conditions = {"clean": clean, "mask": np.array([[1, 0, 0]], np.float32)}
    noise = initial_noise(clean.shape, 0, 80.0)
    whole, block = (
        run(tiny_denoiser(blocks, form, guidance), texts, noise, conditions, 7.0)[-1] for form in ("whole", "block")
    )
    assert np.abs(whole).max() > 0.1 and np.abs(whole - block).max() <= 1e-5 * np.abs(whole).max()


def test_blocks_by_onnx_runtime(tiny_denoiser):
    """The chain of graphs in ONNX Runtime, weights bound from the mapped file, against torch."""
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((2, 1, 7, 24)).astype(np.float32)
    noise = initial_noise((1, 16, 3, 4, 6), 0, 80.0)
    conditions = {"clean": noise / 80, "mask": np.array([[1, 0, 0]], np.float32)}
    graphs = tiny_denoiser(4, "block", "sequential", onnx=True)  # before sessions are replaced
    actual = run(graphs, texts, noise, conditions, 7.0)
    expected = run(tiny_denoiser(4, "block", "sequential"), texts, noise, conditions, 7.0)
    assert np.abs(actual[-1] - expected[-1]).max() <= 1e-4 * np.abs(expected[-1]).max()


def test_block_form_holds_two_sets_of_activations(golden, golden_denoiser):
    """Whatever the number of blocks and branches."""
    g = golden("pipeline_t2i")
    shape = DenoiserShape(16, 1, 8, 12, 9)
    bound = golden_denoiser(g, "block", "sequential").bind(shape, guided=True)
    hidden = {call[name].pointer for call in bound.calls for name in ("hidden", "next_hidden") if name in call.buffers}
    assert len(bound.calls) == 6 and len(hidden) == 2
