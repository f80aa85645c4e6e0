"""Known frames, against the network and the sampler written out in float64 from the published formulas.

The reference is itself held against the official tensors first; then it says what the runtime has to give for numbers
of known frames, levels, guidance and sizes that the official tensors do not cover.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from worldrt.engine.bundle import Denoiser, Guidance, Sampler
from worldrt.export.families.cosmos.variants import variant
from worldrt.runtime import Video2World
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.request import Request, video_settings
from worldrt.runtime.samplers import CLEAN, SamplerTable, rectified_flow_ab2
from worldrt.runtime.sampling import sample

CLEAN_SIGMA = 1e-4
EPS = 1e-6
GUIDANCE = 7.0
erf = np.vectorize(math.erf)


@dataclass
class Float64:
    """The video denoiser of one golden file, one clip at a time: latents (C, T, H, W), text (N, C)."""

    weights: dict[str, np.ndarray]
    heads: int
    blocks: int
    ratio: tuple[float, float, float]

    @classmethod
    def of(cls, golden) -> Float64:
        weights = {key: value.double().numpy() for key, value in golden.weights.items()}
        config = golden.config()
        return cls(weights, config.heads, config.blocks, config.rope_ratio)

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T

    def x0(self, x, sigma, text, clean, mask):
        """`sigma` and `mask` (T,). The prediction, and what the network was given and gave."""
        level = np.where(mask == 1, CLEAN_SIGMA, sigma)
        t = (level / (1 + level))[:, None, None]
        noisy = (sigma / (1 + sigma))[:, None, None]
        known = mask[:, None, None] == 1
        net_in = np.where(known, clean, x * (1 - noisy))  # after c_in: known frames are not scaled
        velocity = self.network(net_in, t[:, 0, 0], text, mask)
        return np.where(known, clean, (1 - t) * x - t * velocity), net_in, t[:, 0, 0], velocity

    def network(self, x, t, text, mask):
        channels, frames, rows, columns = x.shape
        extra = np.stack([np.broadcast_to(mask[:, None, None], x.shape[1:]), np.zeros(x.shape[1:])])  # mask, padding
        cells = np.concatenate([x, extra]).reshape(channels + 2, frames, rows // 2, 2, columns // 2, 2)
        tokens = cells.transpose(1, 2, 4, 0, 3, 5).reshape(frames, rows * columns // 4, -1)
        h = self.linear(tokens, "x_embedder.proj.1")
        half = h.shape[-1] // 2
        angles = t[:, None] * np.exp(-math.log(10000) * np.arange(half) / half)
        wave = np.concatenate([np.cos(angles), np.sin(angles)], -1)
        lora = self.linear(silu(self.linear(wave, "t_embedder.1.linear_1")), "t_embedder.1.linear_2")
        emb = rms(wave, self.weights["t_embedding_norm.weight"])
        turns = self.angles(frames, rows // 2, columns // 2)
        for i in range(self.blocks):
            h = self.block(f"blocks.{i}", h, emb, lora, text, turns)
        shift, scale = self.modulation("final_layer.adaln_modulation", emb, lora[:, : 2 * h.shape[-1]], 2)
        out = self.linear(norm(h) * (1 + scale) + shift, "final_layer.linear")
        out = out.reshape(frames, rows // 2, columns // 2, 2, 2, channels)
        return out.transpose(5, 0, 1, 3, 2, 4).reshape(x.shape)

    def modulation(self, name, emb, lora, parts):
        table = self.linear(self.linear(silu(emb), f"{name}.1"), f"{name}.2") + lora
        return np.split(table[:, None], parts, axis=-1)

    def block(self, name, h, emb, lora, text, turns):
        for part in ("self_attn", "cross_attn", "mlp"):
            shift, scale, gate = self.modulation(f"{name}.adaln_modulation_{part}", emb, lora, 3)
            seen = norm(h) * (1 + scale) + shift
            if part == "mlp":
                wide = self.linear(seen, f"{name}.mlp.layer1")
                done = self.linear(0.5 * wide * (1 + erf(wide / math.sqrt(2))), f"{name}.mlp.layer2")
            else:
                flat = seen.reshape(-1, seen.shape[-1])
                own = part == "self_attn"
                done = self.attention(f"{name}.{part}", flat, flat if own else text, turns if own else None)
            h = h + gate * done.reshape(h.shape)
        return h

    def attention(self, name, x, context, turns):
        def heads(part, source):
            projected = self.linear(source, f"{name}.{part}_proj").reshape(len(source), self.heads, -1)
            if part != "v":
                projected = rms(projected, self.weights[f"{name}.{part}_norm.weight"])
                projected = projected if turns is None else rotated(projected, turns)
            return projected.transpose(1, 0, 2)

        q, k, v = heads("q", x), heads("k", context), heads("v", context)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ v
        return self.linear(mixed.transpose(1, 0, 2).reshape(len(x), -1), f"{name}.output_proj")

    def angles(self, frames, rows, columns):
        """(tokens, head dimension / 2): of the frame, then the row, then the column."""
        dim = self.weights["blocks.0.self_attn.q_norm.weight"].shape[0]
        spatial = dim // 6 * 2
        parts = []
        for axis, (d, count) in enumerate(
            zip((dim - 2 * spatial, spatial, spatial), (frames, rows, columns), strict=True)
        ):
            base = 10000 * self.ratio[axis] ** (d / (d - 2))
            table = np.arange(count)[:, None] / base ** (np.arange(0, d, 2) / d)
            shape = [1, 1, 1, d // 2]
            shape[axis] = count
            parts.append(np.broadcast_to(table.reshape(shape), (frames, rows, columns, d // 2)))
        return np.concatenate(parts, -1).reshape(frames * rows * columns, -1)

    def guided(self, x, sigma, texts, clean, mask):
        level = np.full(x.shape[1], sigma)
        cond, uncond = (self.x0(x, level, text, clean, mask)[0] for text in texts)
        return cond + GUIDANCE * (cond - uncond)

    def sample(self, noise, steps, texts, clean, mask):
        """All states of the two-step exponential Adams-Bashforth sampler from 80 to 0.002, and the clean pass."""
        ramp = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps + 1) ** 7
        x, before, states = noise, None, []
        for i in range(steps):
            x0, h = self.guided(x, ramp[i], texts, clean, mask), math.log(ramp[i] / ramp[i + 1])
            phi1 = -math.expm1(-h) / h
            phi2 = (phi1 - 1) / -h
            c2 = math.inf if before is None else math.log(ramp[i] / ramp[i - 1]) / h
            x = math.exp(-h) * x + h * ((phi1 - phi2 / c2) * x0 + phi2 / c2 * (x0 if before is None else before))
            before = x0
            states.append(x)
        return [*states, self.guided(x, ramp[-1], texts, clean, mask)]


def silu(x):
    return x / (1 + np.exp(-x))


def norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)


def rms(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * weight


def rotated(x, turns):
    a, b = np.split(x, 2, axis=-1)
    cos, sin = np.cos(turns)[:, None], np.sin(turns)[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


@pytest.mark.parametrize("case", ["hi_B", "mid_B1", "lo_B", "perframe_BT"])
def test_the_reference_is_the_official_denoiser(golden, case):
    """Its input, timesteps and output too: replaced after c_in, known frames at sigma 1e-4, x0 overwritten."""
    g = golden("denoise_v2w_t4")
    reference, sigma = Float64.of(g), np.broadcast_to(g[f"{case}.in.sigma"].ravel(), 4).astype(np.float64)
    x, mask = g[f"{case}.in.x_noisy"][0].astype(np.float64), g["in.condition_mask"][0, 0, :, 0, 0]
    x0, net_in, t, velocity = reference.x0(x, sigma, g["in.crossattn_emb"][0], g["in.clean_latents"][0], mask)
    rounding = np.abs(x).max() * 2**-24  # of 1 - t in float32, near t = 1
    for value, name in ((net_in, "net.in_x"), (t, "net.in_timesteps"), (velocity, "net.out"), (x0, "out.x0")):
        bound = 1e-6 + rounding if "in_" in name else 5e-5
        assert np.abs(value - g[f"{case}.{name}"][0]).max() <= bound, name
    eps = (x - x0) / sigma[:, None, None]
    assert (np.abs(eps - g[f"{case}.out.eps"][0]).max((0, 2, 3)) * sigma).max() <= 5e-5
    if f"{case}.cfg.x0" in g.arrays:
        texts = (g["in.crossattn_emb"][0], g["in.neg_crossattn_emb"][0])
        guided = reference.guided(x, sigma[0], texts, g["in.clean_latents"][0], mask)
        assert np.abs(guided - g[f"{case}.cfg.x0"][0]).max() <= 5e-4
        uncond = reference.x0(x, sigma, texts[1], g["in.clean_latents"][0], mask)[0]
        assert np.abs(uncond - g[f"{case}.cfg.x0_uncond"][0]).max() <= 5e-5


def test_the_reference_is_the_official_pipeline(golden):
    g = golden("pipeline_v2w_t4")
    mask, noise = g["in.condition_mask"][0, 0, :, 0, 0], g["out.initial_state"][0].astype(np.float64)
    texts = (g["in.crossattn_emb"][0], g["in.neg_crossattn_emb"][0])
    states = Float64.of(g).sample(noise, 5, texts, g["in.clean_latents"][0].astype(np.float64), mask)
    for state, expected in zip(states, [*g["out.states"][:, 0], g["out.latents"][0]], strict=True):
        assert np.abs(state - expected).max() <= 1e-3


class Runtime:
    """A bound denoiser over golden weights, with the inputs of one clip."""

    def __init__(self, golden_denoiser, g, form, guidance, texts, clean, mask):
        channels, frames, rows, columns = clean.shape
        model = golden_denoiser(g, form, guidance)
        self.bound = model.bind(DenoiserShape(channels, frames, rows, columns, len(texts[0])), guided=True)
        self.bound.fill_text(*texts)
        self.bound.fill("position", np.arange(frames, dtype=np.float32))
        self.bound.fill("clean", clean[None])
        self.bound.fill("mask", mask[None])

    def x0(self, x, sigma):
        """(cond, uncond) at the level of each frame."""
        self.bound.fill("x", x[None])
        self.bound.fill("level", sigma[None])
        self.bound.run()
        return self.bound.cond.numpy()[0].copy(), self.bound.uncond.numpy()[0].copy()

    def sample(self, noise, steps):
        table = rectified_flow_ab2(steps, 80.0, 0.002)
        return [np.array(self.bound.x.numpy()[0]) for _ in sample(self.bound, table, noise[None], guidance=GUIDANCE)]


def clip(g, frames, rows, columns, known, seed=0):
    """Texts, clean latents and a mask of `known` frames."""
    rng, width = np.random.default_rng(seed), g.config().text_width
    texts = rng.standard_normal((2, 9, width)).astype(np.float32)
    clean = rng.standard_normal((16, frames, rows, columns)).astype(np.float32)
    mask = (np.arange(frames) < known).astype(np.float32)
    return texts, clean, mask


FORMS = [("whole", "batched"), ("block", "sequential")]


@pytest.mark.parametrize(("form", "guidance"), FORMS)
@pytest.mark.parametrize("case", ["hi_B", "mid_B1", "lo_B", "perframe_BT"])
def test_the_official_denoiser(golden, golden_denoiser, case, form, guidance):
    """Through bound buffers and the guided update, as a run goes."""
    g = golden("denoise_v2w_t4")
    texts = np.concatenate([g["in.crossattn_emb"], g["in.neg_crossattn_emb"]])
    mask, sigma = g["in.condition_mask"][0, 0, :, 0, 0], np.broadcast_to(g[f"{case}.in.sigma"].ravel(), 4)
    runtime = Runtime(golden_denoiser, g, form, guidance, texts, g["in.clean_latents"][0], mask)
    cond, uncond = runtime.x0(g[f"{case}.in.x_noisy"][0], np.array(sigma))
    assert np.abs(cond - g[f"{case}.out.x0"][0]).max() <= 5e-5
    if f"{case}.cfg.x0" in g.arrays:
        assert np.abs(uncond - g[f"{case}.cfg.x0_uncond"][0]).max() <= 5e-5
        table = SamplerTable(sigma[:1].astype(np.float64), np.array([CLEAN]))
        list(sample(runtime.bound, table, g[f"{case}.in.x_noisy"], guidance=GUIDANCE))
        assert np.abs(runtime.bound.x.numpy() - g[f"{case}.cfg.x0"]).max() <= 5e-4


@pytest.mark.parametrize(("form", "guidance"), FORMS)
@pytest.mark.parametrize("known", [0, 1, 2])
def test_known_frames(golden, golden_denoiser, form, guidance, known):
    """No frame, 1 frame and 5 frames (2 latents), at high, low and mixed levels; both branches get the same ones."""
    g = golden("denoise_v2w_t4")
    texts, clean, mask = clip(g, 4, 6, 8, known)
    runtime, reference = Runtime(golden_denoiser, g, form, guidance, texts, clean, mask), Float64.of(g)
    x = np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    for sigma in ([80.0] * 4, [0.002] * 4, [0.1, 7.0, 2.0, 30.0]):
        state = x * np.array(sigma, np.float32)[:, None, None]
        found = runtime.x0(state, np.array(sigma, np.float32))
        for text, value in zip(texts, found, strict=True):
            expected = reference.x0(state.astype(np.float64), np.array(sigma), text, clean, mask)[0]
            assert np.abs(value - expected).max() <= 5e-5
            assert np.array_equal(value[:, :known], clean[:, :known])
        assert np.abs(found[0] - found[1])[:, known:].max() > 1e-3


def test_noise_in_known_frames_has_no_effect(golden, golden_denoiser):
    """Their state is replaced before the network and after it; a wrong order would let some of it through."""
    g = golden("denoise_v2w_t4")
    texts, clean, mask = clip(g, 3, 6, 8, 1)
    runtime = Runtime(golden_denoiser, g, "whole", "batched", texts, clean, mask)
    x, level = np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32), np.full(3, 5.0, np.float32)
    other = x.copy()
    other[:, 0] += 100
    assert np.array_equal(runtime.x0(x, level), runtime.x0(other, level))
    level[0] = 80.0
    assert np.array_equal(runtime.x0(x, level)[0], runtime.x0(other, np.full(3, 5.0, np.float32))[0])


@pytest.mark.parametrize(("name", "frames", "rows", "columns", "known"), [
    ("pipeline_v2w_t4", 4, 6, 8, 2),  # 5 given frames
    ("pipeline_v2w_t4", 3, 10, 4, 1),  # upright
    ("dit_v2w_14b_t5", 6, 4, 6, 1),  # the position ratios of 14B, more frames than its file has
    ("dit_v2w_2b_hd24_t3_b1", 2, 6, 4, 1),
])  # fmt: skip
def test_sampling_with_known_frames(golden, golden_denoiser, name, frames, rows, columns, known):
    """Whole runs of five steps, other sizes and numbers of frames than the official tensors have."""
    g = golden(name)
    texts, clean, mask = clip(g, frames, rows, columns, known)
    noise = initial_noise((1, *clean.shape), 5, 80.0)[0]
    runtime = Runtime(golden_denoiser, g, "block", "batched", texts, clean, mask)
    expected = Float64.of(g).sample(noise.astype(np.float64), 5, texts, clean.astype(np.float64), mask)
    for state, other in zip(runtime.sample(noise, 5), expected, strict=True):
        assert np.abs(state - other).max() <= 1e-3
    assert np.array_equal(runtime.bound.x.numpy()[0, :, :known], clean[:, :known])


@pytest.mark.parametrize("size", ["2B", "14B"])
@pytest.mark.parametrize("resolution", ["480", "720"])
@pytest.mark.parametrize(("fps", "frames"), [(16, 93), (10, 61)])
def test_frame_rates_and_sizes_of_the_released_models(size, resolution, fps, frames):
    """What a request comes to; the frame rate is a matter of how many frames, and no input of the network."""
    part = variant(size, "video2world")
    published = {
        "720": {"16:9": (1280, 704), "4:3": (960, 704), "1:1": (960, 960), "3:4": (704, 960), "9:16": (704, 1280)},
        "480": {"16:9": (768, 432), "4:3": (640, 480), "1:1": (480, 480), "3:4": (480, 640), "9:16": (432, 768)},
    }
    sizes = {name: dict(table) for name, table in part.sizes.items()}
    spec = Denoiser(
        precision="float32", files=(), graphs={}, form="whole", blocks=1, conditions={},
        sampler=Sampler("rectified_flow_ab2", 35, 80.0, 0.002), guidance=Guidance("delta", 7.0),
        sizes=sizes, frames={str(rate): 4 * count - 3 for rate, count in part.latent_frames.items()},
    )  # fmt: skip
    for ratio, expected in published[resolution].items():
        request = Request("a", resolution=resolution, fps=fps, aspect_ratio=ratio)
        settings = video_settings(request, spec, temporal=4, clean_frames=5)
        assert (settings.width, settings.height) == expected
        assert (settings.num_frames, settings.total_frames, settings.fps) == (frames, frames, fps)


def test_the_frame_rate_is_no_input_of_the_network(nano_by_torch):
    """The same number of frames at 10 and 16 per second is the same clip."""
    request = Request("a red car", steps=1, num_frames=9, width=48, height=32)
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    with Video2World.open(nano_by_torch.folder) as world:
        slow, fast = (np.stack(list(world(replace(request, fps=fps), picture))) for fps in (10, 16))
        assert np.array_equal(slow, fast)
        assert [len(list(world(replace(request, fps=fps, num_frames=None), picture))) for fps in (10, 16)] == [9, 17]
