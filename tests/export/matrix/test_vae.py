"""The VAE against the official code and diffusers: streams, clips, and the graphs of a stream by ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import diffusers
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from worldrt.export import trace
from worldrt.export.families.matrix.graphs import CHUNKS, vae_graphs
from worldrt.export.families.matrix.vae import DecodeChunk, EncodeChunk
from worldrt.export.families.matrix.variants import VAEConfig

TOLERANCE = 5e-5


def in_chunks(module, x, sizes, outputs=1):
    """What a module makes of x (B, C, T, ...) in chunks, one after the other."""
    caches, made, start = (), [], 0
    for size in sizes:
        (*results,) = module(x[:, :, start : start + size], *caches)
        made.append(results[:outputs])
        caches, start = results[outputs:], start + size
    assert start == x.shape[2]
    return [torch.cat(parts, dim=2) for parts in zip(*made, strict=True)]


def test_a_stream_of_latents_is_decoded_as_by_the_official_code(golden):
    file = golden("vae_decode_stream")
    sizes = file.tensors["s1.sizes"].tolist()
    assert sizes[0] == CHUNKS["decode_first"].latents and set(sizes[1:]) == {CHUNKS["decode_next"].latents}
    (got,) = in_chunks(file.decode(), file.tensors["s1.z"], sizes)
    expected = torch.cat([file.tensors[f"s1.call_{i}.frames"] for i in range(len(sizes))], dim=2)
    assert (got - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("count", [3, 5, 7])
def test_clips_are_decoded_as_by_the_official_code(golden, count):
    """Three latents first, then pairs."""
    file = golden("vae_decode_stream")
    sizes = [CHUNKS["decode_first_3"].latents] + [CHUNKS["decode_next_2"].latents] * ((count - 3) // 2)
    (got,) = in_chunks(file.decode(), file.tensors[f"whole_{count}.z"], sizes)
    assert (got - file.tensors[f"whole_{count}.frames"]).abs().max() <= TOLERANCE
    assert got.shape[2] == 4 * (count - 1) + 1


def test_the_caches_are_all_that_a_stream_remembers(golden):
    """A new stream is begun by leaving them out."""
    file = golden("vae_decode_stream")
    decode, (first, second) = file.decode(), (file.tensors[f"noreset.z_{n}"] for n in ("first", "second"))
    _, *caches = decode(first)
    for given, name in ((caches, "second"), ((), "second_if_reset")):
        assert (decode(second, *given)[0] - file.tensors[f"noreset.frames_{name}"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("frames", [5, 9, 17])
def test_clips_are_encoded_as_by_the_official_code(golden, frames):
    file = golden("vae_encode")
    sizes = [frames] if frames < 8 else [8 + frames % 8] + [8] * (frames // 8 - 1)
    mean, deviation = in_chunks(file.encode(), file.tensors[f"enc_{frames}.x"], sizes, outputs=2)
    expected, log_variance = file.tensors[f"enc_{frames}.moments"].chunk(2, dim=1)
    assert (mean - expected).abs().max() <= TOLERANCE
    assert (deviation - (log_variance / 2).exp()).abs().max() <= TOLERANCE


def test_clips_of_nine_frames_and_back_are_those_of_diffusers():
    """With two layers in each stage, where chunks are the same."""
    config = VAEConfig(widths=(8, 8, 16, 16), layers=2, groups=4, latent_channels=4)
    reference = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=config.widths, layers_per_block=2, norm_num_groups=4, latent_channels=4
    ).eval()
    encode, decode = EncodeChunk(config), DecodeChunk(config, pixel_format=None)
    state = reference.state_dict()
    for module, prefix in ((encode, "encoder."), (decode, "decoder.")):
        module.load_state_dict({k: v for k, v in state.items() if k.startswith(prefix)})
    video = torch.rand(1, 3, 9, 16, 24) * 2 - 1
    with torch.no_grad():
        posterior = reference.encode(video).latent_dist
        latent, deviation = encode(video)[:2]
        frames, expected = decode(latent)[0], reference.decode(posterior.mean).sample
    assert (latent / config.scaling - posterior.mean).abs().max() <= 1e-5
    assert (deviation / config.scaling - posterior.std).abs().max() <= 1e-5
    assert frames.shape == video.shape and (frames - expected).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def sessions(golden):
    """The graphs of a decoded stream for latents of 3 x 5, and the golden weights that they take as inputs."""
    file, axes = golden("vae_decode_stream"), {"rows": 3, "columns": 5}
    found = {}
    for source in vae_graphs(file.vae_config()):
        if source.name in ("decode_first", "decode_next"):
            still = [
                tuple(replace(s, shape=s.resolve(axes)) for s in specs) for specs in (source.inputs, source.outputs)
            ]
            model = trace.export_onnx(replace(source, inputs=still[0], outputs=still[1]))
            found[source.name] = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return found, {key: value.numpy() for key, value in file.weights.items()}


def test_the_graphs_of_a_stream_give_its_frames(golden, sessions):
    """By ONNX Runtime, as levels of 8 bits; a cache of one call is the input of the next."""
    graphs, weights = sessions
    tensors = golden("vae_decode_stream").tensors
    state, start = {}, 0
    for number, size in enumerate(tensors["s1.sizes"].tolist()):
        session = graphs["decode_first" if number == 0 else "decode_next"]
        names = [i.name for i in session.get_inputs()]
        given = {"latent": tensors["s1.z"][:, :, start : start + size].numpy()} | state | weights
        made = session.run(None, {name: given[name] for name in names})
        outputs = dict(zip((o.name for o in session.get_outputs()), made, strict=True))
        expected = tensors[f"s1.call_{number}.frames"].clamp(-1, 1).permute(0, 2, 3, 4, 1).numpy() * 127.5 + 127.5
        assert np.abs(outputs.pop("frames") - expected).max() <= 0.5 + 0.01
        state = {f"cache_in_{name.removeprefix('cache_')}": value for name, value in outputs.items()}
        start += size
