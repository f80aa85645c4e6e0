"""The denoiser against the official one: preconditioning, known frames, guidance, a short sampling run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from worldrt.export.families.cosmos.denoiser import BlockStep, Denoise, Embed, Head, precondition

ROWS = torch.zeros(16, 2)  # frames are whole


@pytest.mark.parametrize("case", ["hi_B", "mid_B1", "lo_B", "perframe_BT"])
def test_denoise_is_the_official_one(golden, case):
    g = golden("denoise_v2w_t4")
    t = g.tensors
    level, position = per_frame_sigma(t[f"{case}.in.sigma"], 4), torch.arange(4).float()
    mask = t["in.condition_mask"][:, 0, :, 0, 0]
    net_in, timestep = precondition(t[f"{case}.in.x_noisy"], level, t["in.clean_latents"], mask)
    assert (net_in - t[f"{case}.net.in_x"]).abs().max() <= 1e-6
    assert (timestep - t[f"{case}.net.in_timesteps"]).abs().max() <= 1e-6

    denoise = Denoise(g.dit())
    inputs = (t[f"{case}.in.x_noisy"], level, t["in.crossattn_emb"], position, t["in.clean_latents"], mask)
    x0 = denoise(*inputs)
    assert (x0 - t[f"{case}.out.x0"]).abs().max() <= 5e-5
    assert torch.equal(x0[:, :, :1], t["in.clean_latents"][:, :, :1])
    if f"{case}.cfg.x0" in t:
        uncond = denoise(inputs[0], level, t["in.neg_crossattn_emb"], *inputs[3:])
        assert (uncond - t[f"{case}.cfg.x0_uncond"]).abs().max() <= 5e-5
        assert (x0 + g.meta["guidance"] * (x0 - uncond) - t[f"{case}.cfg.x0"]).abs().max() <= 5e-4


def test_sampling_of_video2world(golden):
    g = golden("pipeline_v2w_t4")
    t = g.tensors
    denoise, mask = Denoise(g.dit()), t["in.condition_mask"][:, 0, :, 0, 0]
    texts = (t["in.crossattn_emb"], t["in.neg_crossattn_emb"])

    def guided(x, sigma):
        known = (torch.arange(4).float(), t["in.clean_latents"], mask)
        c, u = (denoise(x, torch.full((1, 4), sigma), text, *known) for text in texts)
        return c + g.meta["guidance"] * (c - u)

    latents = sample(guided, t["out.initial_state"], g.meta["steps"])
    assert (latents - t["out.latents"]).abs().max() <= 1e-3


@pytest.mark.parametrize("negative", ["neg", "noneg"])
def test_sampling_of_text2image(golden, negative):
    g = golden("pipeline_t2i")
    t = g.tensors
    denoise, text = Denoise(g.dit()), t["in.crossattn_emb"]
    other = t["in.neg_crossattn_emb"] if negative == "neg" else torch.zeros_like(text)

    def guided(x, sigma):
        c, u = (denoise(x, torch.full((1, 1), sigma), y, torch.zeros(1)) for y in (text, other))
        return c + g.meta["guidance"] * (c - u)

    latents = sample(guided, t[f"{negative}.out.initial_state"], g.meta["steps"])
    assert (latents - t[f"{negative}.out.latents"]).abs().max() <= 1e-3


@pytest.mark.parametrize("name", ["dit_v2w_14b_t5", "dit_t2i_hd16", "dit_v2w_image_t1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_segments_are_the_whole_bit_for_bit(golden, name, dtype):
    g = golden(name)
    dit, x, text = g.dit().to(dtype), g.tensors["in.x"], g.tensors["in.crossattn_emb"]
    batch, _, frames, _, _ = x.shape
    level = torch.rand(batch, frames) * 20
    known = ()
    if g.dit_config().condition_mask:
        known = (torch.randn_like(x), torch.zeros(batch, frames).index_fill(1, torch.tensor([0]), 1.0))
    position = torch.arange(frames).float()
    whole = Denoise(dit)(x, level, text, position, *known)

    hidden, q, kv, emb, lora, cos, sin = Embed(dit.stem, dit.block(0))(x, level, position, ROWS[:frames], *known)
    assert kv.shape[:3] == (frames, 2, batch)
    for i in range(g.dit_config().blocks - 1):
        step = BlockStep(dit.block(i), dit.block(i + 1))
        hidden, q, kv = step(hidden, q, kv, text, emb, lora, cos, sin)
    pieces = Head(dit.block(-1), dit.final)(hidden, q, kv, text, emb, lora, x, level, *known)
    assert torch.equal(pieces, whole)


def test_frame_shards_with_gathered_keys_are_the_whole(golden):
    g = golden("dit_v2w_14b_t5")
    dit, x, text = g.dit(), g.tensors["in.x"], g.tensors["in.crossattn_emb"]
    level, position = torch.rand(2, 5) * 20, torch.arange(5).float()
    known = (torch.randn_like(x), torch.tensor([[1.0, 0, 0, 0, 0]] * 2))
    whole = Denoise(dit)(x, level, text, position, *known)

    cut = [slice(0, 2), slice(2, 5)]
    shards = [(x[:, :, s], level[:, s], (known[0][:, :, s], known[1][:, s])) for s in cut]
    embed = Embed(dit.stem, dit.block(0))
    states = [embed(a, b, position[s], ROWS[s], *c) for (a, b, c), s in zip(shards, cut, strict=True)]
    everyone = torch.cat([state[2] for state in states])
    step = BlockStep(dit.block(0), dit.block(1))
    stepped = [step(s[0], s[1], everyone, text, *s[3:]) for s in states]
    everyone = torch.cat([kv for _, _, kv in stepped])
    head = Head(dit.block(1), dit.final)
    parts = [
        head(hidden, q, everyone, text, s[3], s[4], a, b, *c)
        for (hidden, q, _), s, (a, b, c) in zip(stepped, states, shards, strict=True)
    ]
    assert (torch.cat(parts, dim=2) - whole).abs().max() <= 2e-5


def per_frame_sigma(sigma, frames):
    return sigma.reshape(sigma.shape[0], -1).expand(-1, frames)


def sample(guided, state, steps):
    """Exponential Adams-Bashforth of order two on a Karras ramp, in float64, and the clean pass at its end."""
    ramp = np.linspace(80.0 ** (1 / 7), 0.002 ** (1 / 7), steps + 1) ** 7
    previous = None
    for i in range(steps):
        x0 = guided(state, float(np.float32(ramp[i]))).double()
        x, h = state.double(), math.log(ramp[i] / ramp[i + 1])
        phi1 = -math.expm1(-h) / h
        if previous is None:
            state = (math.exp(-h) * x + h * phi1 * x0).float()
        else:
            c2, phi2 = math.log(ramp[i] / ramp[i - 1]) / h, (phi1 - 1) / -h
            state = (math.exp(-h) * x + h * ((phi1 - phi2 / c2) * x0 + phi2 / c2 * previous)).float()
        previous = x0
    return guided(state, float(np.float32(ramp[steps])))
