"""What the family hands to the tracer: signatures, shapes, dtypes, and a checkpoint key for every parameter."""

from __future__ import annotations

import pytest

from worldrt.engine.errors import InputError
from worldrt.export.families.cosmos.graphs import denoiser_graphs, text_graphs, vae_graphs
from worldrt.export.families.cosmos.parts import model
from worldrt.export.families.cosmos.variants import variant, variants
from worldrt.export.plan import Options

from ...fakes.graph_specs import assert_specs_hold

AXES = {"batch": 2, "frames": 3, "context_frames": 5, "rows": 2, "columns": 4, "tokens": 8, "text": 7, "heads": 3}
NANO = variant("nano", "video2world")
IMAGE = variant("nano", "text2image")
SOURCES = [
    *denoiser_graphs(NANO.dit, "whole", "bfloat16", "official"),
    *denoiser_graphs(NANO.dit, "block", "bfloat16", "diffusers"),
    *denoiser_graphs(NANO.dit, "block", "float16", attention_cut=True),
    *denoiser_graphs(IMAGE.dit, "whole"),
    *denoiser_graphs(IMAGE.dit, "block", "float16", "official", rope_dtype="bfloat16"),
    *vae_graphs(NANO.vae, "float16"),
    *vae_graphs(NANO.vae, pixel_format="nv12", key_format="diffusers")[2:],
    *vae_graphs(NANO.vae, pixel_format="yuv420p")[2:],
    *text_graphs(NANO.t5, "bfloat16"),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_a_module_does_what_its_specs_say(source):
    assert_specs_hold(source, AXES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_every_parameter_has_a_key_of_its_own(source):
    assert set(source.weights) == {name for name, _ in source.module.named_parameters()}
    assert len(set(source.weights.values())) == len(source.weights)


def test_names_are_those_of_the_contract():
    conditions = ["clean", "mask"]
    (denoise,) = denoiser_graphs(NANO.dit)
    assert names(denoise.inputs) == ["x", "level", "text", "position", *conditions]
    embed, block, head = denoiser_graphs(NANO.dit, "block")
    state = ["hidden", "q", "kv", "text", "emb", "lora"]
    assert names(embed.inputs) == ["x", "level", "position", "row", *conditions]
    assert names(embed.outputs) == ["hidden", "q", "kv", "emb", "lora", "rope_cos", "rope_sin"]
    assert names(block.inputs) == [*state, "rope_cos", "rope_sin"] and names(block.outputs) == ["hidden", "q", "kv"]
    assert names(head.inputs) == [*state, "x", "level", *conditions] and names(head.outputs) == ["x0"]
    assert block.inputs[2].shape[0] == "context_frames" and block.outputs[2].shape[0] == "frames"
    _, attend, block, _ = denoiser_graphs(NANO.dit, "block", attention_cut=True)
    assert names(attend.inputs) == ["q", "kv"] and names(attend.outputs) == ["attended"] and not attend.weights
    assert names(block.inputs)[:2] == ["hidden", "attended"] and names(block.outputs) == ["hidden", "q", "kv"]
    assert names(denoiser_graphs(IMAGE.dit)[0].inputs) == ["x", "level", "text", "position"]
    first, _, decode_first, decode_next = vae_graphs(NANO.vae)
    assert names(first.outputs)[:2] == ["latent", "cache_00"] and names(decode_next.inputs)[-1] == "cache_in_31"
    for given, taken in zip(decode_first.outputs[1:], decode_next.inputs[1:], strict=True):
        assert given.shape == taken.shape and given.name.replace("cache_", "cache_in_") == taken.name


def test_weights_of_a_block_graph_are_templates():
    embed, block, head = denoiser_graphs(NANO.dit, "block", key_format="official")
    assert block.weights["rest.mlp_in.weight"] == "blocks.{i}.mlp.layer1.weight"
    assert block.weights["next_projection.to_q.weight"] == "blocks.{j}.self_attn.q_proj.weight"
    assert embed.weights["projection.to_q.weight"] == "blocks.0.self_attn.q_proj.weight"
    assert head.weights["rest.output.weight"] == f"blocks.{NANO.dit.blocks - 1}.self_attn.output_proj.weight"
    last = NANO.dit.blocks - 1
    reached = {*embed.weights.values(), *head.weights.values()}
    for i in range(last):
        reached |= {key.format(i=i, j=i + 1) for key in block.weights.values()}
    assert reached == set(denoiser_graphs(NANO.dit)[0].weights.values())


def test_distilled_weights_are_taken_from_their_own_file():
    """The pipelines in diffusers form are not distilled; the video model beside it is the usual one."""
    image, video, *_ = model(Options("2B", distilled=True)).parts
    assert {place.rpartition("/")[2] for place in image.wanted.places} == {
        "model_distilled.pt",
        "model_distilled.safetensors",
    }
    assert "transformer" in video.wanted.places
    with pytest.raises(InputError, match="about text2image"):
        model(Options("2B", task="video2world", distilled=True))


def test_variants_answer_or_say_what_there_is():
    assert (
        variant("2b", "video2world").files("480", 10).dit.endswith("Cosmos-Predict2-2B-Video2World/model-480p-10fps.pt")
    )
    assert variant("14B", "video2world").clip_latents(16) == 24
    assert variant("2B", "text2image").pixel_size() == (1360, 768)
    assert NANO.pixel_size("16:9", "720") == NANO.pixel_size("16:9", "480") == (128, 80)
    assert len({(v.size, v.task) for v in variants()}) == 7
    few = variant("0.6B", "text2image").distilled()
    assert few.files().dit == "nvidia/Cosmos-Predict2-0.6B-Text2Image/model_distilled.pt"
    assert (few.sampler.kind, few.sampler.steps, few.guidance) == ("distilled", 4, 0.0)
    for wrong in (
        lambda: variant("0.6B", "video2world"),
        lambda: variant("2B", "video2world").pixel_size("16:9", "1080"),
        lambda: NANO.pixel_size("21:9"),
        lambda: NANO.clip_latents(24),
    ):
        with pytest.raises(InputError, match=r"there are|has"):
            wrong()


def names(specs):
    return [spec.name for spec in specs]
