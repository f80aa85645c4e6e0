"""Ranges of axes, against sizes that the models are published with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worldrt.engine.bundle import Denoiser, Graph, Guidance, Layout, Manifest, Sampler, Text, Vae, Weights
from worldrt.engine.errors import InputError
from worldrt.engine.plans import Range
from worldrt.engine.profiles import overrides_of, profile_of, split_override
from worldrt.engine.tensors import TensorSpec

SIZES = {
    "480": {"16:9": (832, 480), "1:1": (640, 640), "9:16": (480, 832)},
    "720": {"16:9": (1280, 704), "4:3": (960, 704), "1:1": (960, 960), "3:4": (704, 960), "9:16": (704, 1280)},
}
X = TensorSpec("x", "float32", ("batch", 16, "frames", "2*rows", "2*columns"))
KV = TensorSpec("kv", "bfloat16", ("context_frames", 2, "batch", 40, "tokens", 128))
TEXT = TensorSpec("text", "float32", ("batch", "text", 1024))


def graph(*inputs):
    return Graph("graph.onnx", "", inputs, (), "external", ())


def manifest(sizes=SIZES, frames=None, text=True, vae=True):
    denoiser = Denoiser(
        "bfloat16",
        (),
        {"embed": graph(X), "block": graph(KV, TEXT), "head": graph(X, KV)},
        "block",
        36,
        {},
        Sampler("ab2", 35, 80.0, 0.002),
        Guidance("delta", 7.0),
        sizes,
        frames or {"10": 61, "16": 93},
    )
    latent = TensorSpec("latent", "float32", ("batch", 16, 1, "rows", "columns"))
    coder = Vae("bfloat16", (), {"decode_first": graph(latent)}, 16, 8, 4, (0.0,) * 16, (1.0,) * 16)
    encoder = Text("bfloat16", (), {"encode": graph(replace(TEXT, name="t"))}, "tokenizer.json", 512, 1024)
    return Manifest(
        1,
        "cosmos",
        "14B",
        {},
        Weights("", {}),
        {"video2world": denoiser},
        vae=coder if vae else None,
        text=encoder if text else None,
    )


def numbers(made, component, name, overrides=None, batch=2):
    profile = profile_of(made, component, name, batch=batch, overrides=overrides or {})
    return {axis: (r.min, r.opt, r.max) for axis, r in profile.items()}


def test_a_denoiser_takes_every_size_of_its_model_and_is_best_at_720p_16_fps():
    assert numbers(manifest(), "video2world", "embed") == {
        "batch": (1, 2, 2),
        "frames": (1, 24, 24),  # 93 frames are 1 + 92 / 4 latent ones
        "rows": (30, 44, 80),
        "columns": (30, 80, 80),
    }
    assert numbers(manifest(), "video2world", "block") == {
        "context_frames": (1, 24, 24),
        "batch": (1, 2, 2),
        "tokens": (30 * 52, 44 * 80, 60 * 60),  # of one size, not of the most rows by the most columns
        "text": (512, 512, 512),
    }
    assert numbers(manifest(), "video2world", "block", batch=1)["batch"] == (1, 1, 1)


def test_tokens_agree_with_rows_and_columns_where_a_graph_has_all_three():
    found = numbers(manifest(), "video2world", "head")
    assert all(t == r * c for t, r, c in zip(found["tokens"], found["rows"], found["columns"], strict=True))


def test_other_defaults_where_a_model_has_no_720p_or_16_fps():
    made = manifest({"any": {"1:1": (96, 96), "4:3": (128, 96)}}, {"10": 61}, text=False, vae=False)
    found = numbers(made, "video2world", "embed")
    assert (found["rows"], found["columns"], found["frames"]) == ((6, 6, 6), (6, 6, 8), (1, 16, 16))
    assert numbers(made, "video2world", "block")["text"] == (512, 512, 512)


def test_the_vae_and_the_text_encoder_take_one_at_a_time():
    assert numbers(manifest(), "vae", "decode_first") == {
        "batch": (1, 1, 1),
        "rows": (60, 88, 160),
        "columns": (60, 160, 160),
    }
    assert numbers(manifest(), "text", "encode") == {"batch": (1, 1, 1), "text": (1, 128, 512)}


def test_ranges_are_replaced_in_patches_for_all_or_by_component():
    given = dict(split_override(text) for text in ("rows=10:44:44", "columns=80", "frames=1:6:6", "vae.columns=4:5:6"))
    assert numbers(manifest(), "video2world", "embed", given) == {
        "batch": (1, 2, 2),
        "frames": (1, 6, 6),
        "rows": (10, 44, 44),
        "columns": (80, 80, 80),
    }
    assert numbers(manifest(), "video2world", "block", given)["tokens"] == (800, 3520, 3520)
    found = numbers(manifest(), "vae", "decode_first", given)
    assert (found["rows"], found["columns"]) == ((20, 88, 88), (4, 5, 6))
    only = {"tokens": Range(1, 2, 3), "batch": Range(1, 4, 4)}
    assert numbers(manifest(), "video2world", "block", only)["tokens"] == (1, 2, 3)
    assert numbers(manifest(), "vae", "decode_first", only)["batch"] == (1, 1, 1)
    assert numbers(manifest(), "vae", "decode_first", {"vae.batch": Range(1, 2, 2)})["batch"] == (1, 2, 2)


@pytest.mark.parametrize("text", ["rows", "rows=", "=1:2:3", "rows=1:2", "rows=1:2:3:4", "rows=-1:2:3", "rows=1:x:3"])
def test_ranges_that_cannot_be_read(text):
    with pytest.raises(InputError, match="expected AXIS=MIN:OPT:MAX"):
        split_override(text)


def test_an_axis_is_named_once():
    assert overrides_of(["rows=1:2:3", "vae.rows=4"]) == {"rows": Range(1, 2, 3), "vae.rows": Range(4, 4, 4)}
    with pytest.raises(InputError, match="'rows' is named twice"):
        overrides_of(["rows=1:2:3", "rows=4"])


def test_axes_that_are_not_known():
    with pytest.raises(InputError, match=r"no axis 'lines'; there are: batch, .*vae\.rows"):
        numbers(manifest(), "video2world", "embed", {"lines": Range(1, 1, 1)})
    made = manifest()
    odd = graph(TensorSpec("x", "float32", ("views", 3)))
    denoiser = replace(made.denoisers["video2world"], graphs={"embed": odd})
    with pytest.raises(InputError, match="no range is known for its axis 'views'; give it: views=1:8:16"):
        numbers(replace(made, denoisers={"video2world": denoiser}), "video2world", "embed")
    seen = replace(denoiser, layout=Layout(("box",), 0.1, 3, 4))
    known = numbers(replace(made, denoisers={"video2world": seen}), "video2world", "embed")
    assert known["views"] == (1, 3, 3), "any of those that a model has, best for all"
    alone = replace(made, denoisers={})
    with pytest.raises(InputError, match="its axis 'rows'"):
        numbers(alone, "vae", "decode_first")
    assert numbers(alone, "vae", "decode_first", {"vae.rows": Range(1, 2, 3), "vae.columns": Range(1, 2, 3)})[
        "rows"
    ] == (
        1,
        2,
        3,
    )
