"""Streaming by step graphs equals the official whole encode and decode, for any number of frames."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from worldrt.engine import bundle as b
from worldrt.engine.errors import InputError
from worldrt.engine.weights import fingerprint
from worldrt.export.families.cosmos.graphs import vae_graphs
from worldrt.export.families.cosmos.variants import VAEConfig
from worldrt.kernels import rgb_to_yuv420
from worldrt.runtime import components
from worldrt.runtime.vae import VaeCodec


@pytest.fixture(scope="module")
def sources(golden):
    """The golden VAE by pixel format: few base channels of the official class."""
    base = golden("vae_weights").weights["encoder.conv1.weight"].shape[0]

    @functools.cache
    def make(pixel_format):
        return {f"{s.name}.onnx": s for s in vae_graphs(VAEConfig(base=base), pixel_format=pixel_format)}

    return make


@pytest.fixture
def codec(make_codec):
    return make_codec("rgb24")


@pytest.fixture
def make_codec(tmp_path, golden, monkeypatch, stubs, sources):
    return lambda pixel_format: _codec(tmp_path, golden, monkeypatch, stubs, sources(pixel_format))


def _codec(tmp_path, golden, monkeypatch, stubs, sources):
    weights = golden("vae_weights").weights
    stubs.save(weights, tmp_path / "vae.safetensors")
    for file in sources:
        (tmp_path / file).touch()
    stubs.run_by_torch(monkeypatch, {file: source.module for file, source in sources.items()})
    graphs = {source.name: stubs.graph_of(source, file, weights) for file, source in sources.items()}
    spec = b.Vae("float32", ("vae.safetensors",), graphs, 16, 8, 4, (), ())
    files = {"vae.safetensors": fingerprint(tmp_path / "vae.safetensors")}
    manifest = b.Manifest(b.SCHEMA, "cosmos", "golden", {}, b.Weights(str(tmp_path), files), {}, spec)
    return VaeCodec(components.Opener(b.Bundle(tmp_path, manifest, tmp_path), components.Execution()), spec)


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_decode(codec, golden, frames):
    g = golden("vae_io")
    latents = g["in.latents"][:, :, : codec.latent_frames(frames)]
    decoded = np.stack(list(codec.decode(latents)))
    expected = g[f"out.decode_{frames}f"][0].transpose(1, 2, 3, 0).astype(np.float64).clip(-1, 1) * 127.5 + 127.5
    assert decoded.shape == (frames, 32, 48, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded - expected).max() <= 0.5 + 127.5 * 5e-5  # rounding, and the golden set's tolerance


def test_planes(make_codec, golden):
    """A VAE that ends in NV12 gives the planes of its RGB frames."""
    latents = golden("vae_io")["in.latents"][:, :, :2]
    rgb, planes = (np.stack(list(make_codec(layout).decode(latents))) for layout in ("rgb24", "nv12"))
    assert planes.shape == (5, 48, 48)
    assert np.abs(rgb_to_yuv420(rgb, layout="nv12").astype(int) - planes).max() <= 2  # rounded once more on the way


@pytest.mark.parametrize("frames", [1, 5, 13])
def test_encode(codec, golden, frames):
    """The golden video is float; ours starts at bytes, so the oracle is the official encoder's own smoothness: a
    video of bytes is encoded twice, by us from bytes and by the step graphs from the same values as floats."""
    g = golden("vae_io")
    video = np.rint((g["in.video"][0, :, :frames].transpose(1, 2, 3, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    exact = np.abs(codec.encode(video) - g[f"out.encode_{frames}f"]).max()
    assert exact < 0.05  # the bytes differ from the golden floats by at most half a level
    shifted = codec.encode(255 - video)
    assert np.abs(shifted - g[f"out.encode_{frames}f"]).max() > 0.2


def test_two_decodes_at_once(codec, golden):
    """Each has its own caches."""
    latents = golden("vae_io")["in.latents"]
    alone = np.stack(list(codec.decode(latents)))
    pairs = list(zip(codec.decode(latents), codec.decode(latents[:, :, ::-1]), strict=True))
    assert np.array_equal(np.stack([pair[0] for pair in pairs]), alone)


def test_frames_belong_to_the_caller(codec, golden):
    """A frame does not change when later ones are decoded."""
    frames = codec.decode(golden("vae_io")["in.latents"])
    first = next(frames)
    before = first.copy()
    list(frames)
    assert np.array_equal(first, before) and first.__dlpack_device__()[0] == 1


@pytest.mark.parametrize("frames", [0, 2, 4, 6])
def test_frame_counts(codec, frames):
    with pytest.raises(InputError, match="1 more than a multiple of 4"):
        codec.latent_frames(frames)


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1), (3, 1), (1, 3), (2, 2), (4,)])
def test_a_decode_in_parts_that_makes_room_between_them(codec, golden, cuts):
    """Its graphs and buffers go after each part and come back for the next: the same bytes as in one go."""
    latents = golden("vae_io")["in.latents"]
    whole = np.stack(list(codec.decode(latents)))
    decoder, frames, start = codec.decoder(*latents.shape[2:]), [], 0
    for count in cuts:
        frames += list(decoder(latents[:, :, start : start + count]))
        start += count
        codec.unload()
        assert not codec.loaded and not decoder._calls
    assert np.array_equal(np.stack(frames), whole)


def test_room_is_made_in_the_middle_of_a_latent(codec, golden):
    """Between two frames of one latent, by another model's turn."""
    latents = golden("vae_io")["in.latents"]
    whole, made = np.stack(list(codec.decode(latents))), []
    for frame in codec.decode(latents):
        made.append(frame)
        codec.unload()
    assert np.array_equal(np.stack(made), whole)
