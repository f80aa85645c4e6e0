"""Manifests that are well-typed and still wrong: each is refused with its place."""

import json
from dataclasses import replace

import pytest

from worldrt.engine.bundle import (
    SCHEMA,
    Denoiser,
    Graph,
    Guidance,
    Manifest,
    Sampler,
    Text,
    Vae,
    Weights,
    read_manifest,
    write_manifest,
)
from worldrt.engine.errors import BundleError
from worldrt.engine.schema import encode
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.validate import check_manifest


def graph(inputs, outputs):
    specs = [tuple(TensorSpec(n, "float32", s) for n, s in side.items()) for side in (inputs, outputs)]
    return Graph("g.onnx", "0", *specs, "external", ())


def manifest():
    latent, frames = ("batch", 16, 1, "rows", "columns"), ("batch", 4, "8*rows", "8*columns", 3)
    x = ("batch", 16, "frames", "2*rows", "2*columns")
    denoise = graph({"x": x, "text": ("batch", "text", 24)}, {"x0": x})
    denoiser = Denoiser(
        *("float32", (), {"denoise": denoise}, "whole", 4, {}),
        *(Sampler("ab2", 5, 80.0, 0.002), Guidance("delta", 7.0), {"any": {"1:1": (96, 96)}}, {"16": 17}),
    )
    vae = Vae(
        "float32",
        (),
        {"decode_next": graph({"latent": latent}, {"frames": frames})},
        16,
        8,
        4,
        (0.0,) * 16,
        (1.0,) * 16,
    )
    text = Text("float32", (), {"encode": graph({}, {"text": ("batch", "text", 24)})}, "t.json", 512, 24)
    return Manifest(SCHEMA, "toy", "nano", {}, Weights("/w", {}), {"video": denoiser}, vae, text)


def test_a_sound_manifest(tmp_path):
    write_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path) == manifest()


VIDEO = ("denoisers", "video")


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ((*VIDEO, "blocks"), 0, "denoisers.video.blocks: expected a whole number from 1 up, got 0"),
        ((*VIDEO, "form"), "block", "denoisers.video.graphs: expected block and embed and head"),
        ((*VIDEO, "chain"), ["block_0", "block_1"], "chain: expected names for"),
        ((*VIDEO, "sampler", "steps"), -1, "sampler.steps"),
        ((*VIDEO, "sampler", "sigma_min"), 80, "0 < sigma_min < sigma_max"),
        ((*VIDEO, "sampler", "order"), 0, "sampler.order"),
        ((*VIDEO, "sizes"), {}, "sizes: expected a table"),
        ((*VIDEO, "sizes", "any"), {}, "sizes.any: expected a size"),
        ((*VIDEO, "sizes", "any", "1:1"), [100, 96], "sizes.any.1:1: expected multiples of 16"),
        ((*VIDEO, "sizes", "any", "1:1"), [-16, 96], "multiples of 16"),
        ((*VIDEO, "size_multiple_px"), 0, "size_multiple_px"),
        ((*VIDEO, "frames"), {}, "frames: expected"),
        ((*VIDEO, "frames"), {"x": 17}, "frames.x: expected frames per second"),
        ((*VIDEO, "frames", "16"), 18, "frames.16: expected 1 more than a multiple of 4, got 18"),
        ((*VIDEO, "graphs", "denoise", "inputs", 0, "dtype"), "int4", "tensor 'x': expected a dtype"),
        ((*VIDEO, "graphs", "denoise", "inputs", 0, "shape", 3), "-2*rows", "tensor 'x': expected sizes"),
        ((*VIDEO, "graphs", "denoise", "inputs", 0, "name"), "text", "'text' twice"),
        (("vae", "channels"), 15, "expected 15 in place 1"),
        (("vae", "temporal"), 2, "tensor 'frames': expected 2 in place 1"),
        (("vae", "spatial"), 16, "expected 16[*]rows in place 2"),
        (("vae", "spatial"), 0, "vae.spatial"),
        (("vae", "pixel_format"), "nv12", "expected 12[*]rows in place 2"),
        (("vae", "latent_std"), [1.0] * 3, "vae.latent_std: expected 16 numbers, got 3"),
        (("vae", "latent_std"), [0.0] * 16, "vae.latent_std: expected numbers above 0"),
        (("text", "width"), 23, "expected 23 in place -1"),
        (("text", "max_tokens"), 0, "text.max_tokens"),
        (("text", "max_tokens"), 10**12, "text.max_tokens"),
        ((*VIDEO, "guidance", "scale"), float("nan"), "NaN"),
        ((*VIDEO, "guidance", "scale"), 10**400, "expected a number"),
        (("text", "tokenizer"), "a\0b", "none of them 0"),
        (("variant",), "\ud800", "Unicode"),
        (("schema",), True, "schema version True"),
    ],
)
def test_what_is_refused(tmp_path, place, value, text):
    data = json.loads(json.dumps(encode(manifest())))
    target = data
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    (tmp_path / "bundle.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=text):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '{"schema": 1, "schema": 1}', "\ufeff{}"])
def test_what_is_no_json(tmp_path, text):
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match="cannot be read"):
        read_manifest(tmp_path)


def test_parts_are_optional():
    check_manifest(replace(manifest(), vae=None, text=None))
    check_manifest(replace(manifest(), denoisers={}))
