"""VAE steps against whole encodes and decodes: the official ones, and diffusers on other sizes."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan

from worldrt.export.families.cosmos.vae import DecodeStep, EncodeStep, cache_shapes
from worldrt.export.families.cosmos.variants import VAEConfig
from worldrt.export.families.cosmos.weights import vae_keys
from worldrt.export.modules.pixels import to_pixels


def encode(step, video):
    latent, *caches = step(video[:, :, :1])
    latents = [latent]
    for start in range(1, video.shape[2], 4):
        latent, *caches = step(video[:, :, start : start + 4], *caches)
        latents.append(latent)
    return torch.cat(latents, dim=2)


def decode(step, latents, axis=2):
    frames, caches = [], []
    for latent in latents.split(1, dim=2):
        video, *caches = step(latent, *caches)
        frames.append(video)
    return torch.cat(frames, dim=axis)


def load(step, weights, key_format):
    named = {vae_keys().name(key, key_format): tensor for key, tensor in weights.items()}
    own = step.state_dict()
    assert set(own) <= set(named)
    step.load_state_dict({name: named[name] for name in own})
    return step.requires_grad_(False)


@pytest.fixture(scope="module")
def official(golden):
    weights, config = golden("vae_weights").weights, VAEConfig(base=6)
    steps = EncodeStep(config), DecodeStep(config, pixel_format=None)
    return [load(step, weights, "official") for step in steps]


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(3)
    model = AutoencoderKLWan(base_dim=4).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_steps_are_the_official_encode_and_decode(golden, official, frames):
    t = golden("vae_io").tensors
    latents, rows = 1 + (frames - 1) // 4, official
    assert (encode(rows[0], t["in.video"][:, :, :frames]) - t[f"out.encode_{frames}f"]).abs().max() <= 2e-5
    assert (decode(rows[1], t["in.latents"][:, :, :latents]) - t[f"out.decode_{frames}f"]).abs().max() <= 5e-5


@pytest.mark.parametrize(("frames", "rows", "columns"), [(1, 2, 3), (5, 3, 2), (9, 1, 5), (13, 2, 2)])
def test_steps_are_diffusers(reference, frames, rows, columns):
    config = VAEConfig(base=4)
    mean, std = (torch.tensor(v).view(-1, 1, 1, 1) for v in (config.latent_mean, config.latent_std))
    video = torch.rand(2, 3, frames, 8 * rows, 8 * columns) * 2 - 1
    expected = (reference.encode(video).latent_dist.mode() - mean) / std
    weights = reference.state_dict()
    latents = encode(load(EncodeStep(config), weights, "diffusers"), video)
    assert (latents - expected).abs().max() <= 1e-5
    pixels = decode(load(DecodeStep(config, None), weights, "diffusers"), latents)
    assert (pixels.clamp(-1, 1) - reference.decode(latents * std + mean).sample).abs().max() <= 1e-5


def test_key_maps_are_whole_and_agree(golden, reference):
    keys = vae_keys()
    own = {keys.name(key, "official") for key in golden("vae_weights").weights}
    assert own == {keys.name(key, "diffusers") for key in reference.state_dict()}
    for name in own:
        assert keys.key(name, "official") in golden("vae_weights").weights
        assert keys.key(name, "diffusers") in reference.state_dict()


def test_caches_of_the_real_model():
    with torch.device("meta"):
        down, up = EncodeStep(VAEConfig()), DecodeStep(VAEConfig())
    encoder, decoder = cache_shapes(VAEConfig(), down), cache_shapes(VAEConfig(), up)
    assert (len(encoder), len(decoder)) == (24, 32)
    elements = sum(channels * frames * scale * scale for frames, channels, scale in decoder)
    assert elements * 90 * 160 == 2_179_123_200  # known for 720 x 1280


def test_rgb_levels_are_rounded_and_clamped():
    levels = torch.arange(256, dtype=torch.float32)
    video = (levels / 127.5 - 1).view(1, 1, 1, 16, 16).expand(1, 3, 1, 16, 16)
    nudged = to_pixels(video + 0.3 / 127.5, "rgb24")
    assert nudged.shape == (1, 1, 16, 16, 3)
    assert torch.equal(nudged[0, 0, :, :, 0].flatten(), levels.to(torch.uint8))
    assert to_pixels(torch.full((1, 3, 1, 2, 2), 7.0), "rgb24").min() == 255
    assert to_pixels(torch.full((1, 3, 1, 2, 2), -7.0), "rgb24").max() == 0


def test_planes_follow_bt709():
    video = torch.rand(2, 3, 3, 8, 12) * 2.4 - 1.2
    rgb = (video.clamp(-1, 1).double() + 1) / 2
    kr, kb = 0.2126, 0.0722
    y = kr * rgb[:, 0] + (1 - kr - kb) * rgb[:, 1] + kb * rgb[:, 2]
    mean = torch.nn.functional.avg_pool2d(rgb.flatten(0, 1), 2).view(2, 3, 3, 4, 6)
    mean_y = kr * mean[:, 0] + (1 - kr - kb) * mean[:, 1] + kb * mean[:, 2]
    cb = 128 + 224 * (mean[:, 2] - mean_y) / (2 * (1 - kb))
    cr = 128 + 224 * (mean[:, 0] - mean_y) / (2 * (1 - kr))
    i420, nv12 = to_pixels(video, "yuv420p"), to_pixels(video, "nv12")
    assert i420.shape == nv12.shape == (2, 3, 12, 12)
    assert torch.equal(i420[:, :, :8], nv12[:, :, :8])
    assert (i420[:, :, :8].double() - (16 + 219 * y)).abs().max() <= 0.501
    for plane, got in ((cb, i420[:, :, 8:10]), (cr, i420[:, :, 10:12])):
        assert (got.reshape(2, 3, 4, 6).double() - plane).abs().max() <= 0.501
    assert torch.equal(nv12[:, :, 8:, 0::2].flatten(), i420[:, :, 8:10].flatten())
    assert torch.equal(nv12[:, :, 8:, 1::2].flatten(), i420[:, :, 10:12].flatten())
