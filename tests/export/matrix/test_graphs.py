"""What the family hands to the tracer, and its denoiser's graphs by ONNX Runtime on golden tensors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from worldrt.engine.bundle import Diffusion
from worldrt.engine.errors import InputError
from worldrt.export import trace
from worldrt.export.families.matrix.denoiser import Schedule
from worldrt.export.families.matrix.graphs import block_instances, denoiser_graphs, text_graphs, vae_graphs
from worldrt.export.families.matrix.parts import model
from worldrt.export.families.matrix.segments import Segments
from worldrt.export.families.matrix.variants import NANO, variant, variants
from worldrt.export.link import link
from worldrt.export.passes.fold import fold
from worldrt.export.plan import Options

from ...fakes.graph_specs import assert_specs_hold

AXES = {"batch": 2, "frames": 3, "context_frames": 4, "window_frames": 5, "rows": 2, "columns": 4, "tokens": 8}
AXES |= {"text": 7, "heads": 3}
SMALL = variant(NANO)
SOURCES = [
    *denoiser_graphs(SMALL.dit, SMALL.diffusion, "whole", "bfloat16"),
    *denoiser_graphs(SMALL.dit, SMALL.diffusion, "whole", "float16", SMALL.fixed_levels()),
    *denoiser_graphs(SMALL.dit, SMALL.diffusion, "block", "float16"),
    *denoiser_graphs(SMALL.dit, SMALL.diffusion, "block", attention_cut=True),
    *vae_graphs(SMALL.vae, "float16"),
    *vae_graphs(SMALL.vae, pixel_format="nv12")[2:3],
    *text_graphs(SMALL.t5, "bfloat16"),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_a_module_does_what_its_specs_say(source):
    assert_specs_hold(source, AXES)
    assert set(source.weights) == {name for name, _ in source.module.named_parameters()}


def test_keys_are_those_of_published_checkpoints(golden):
    (whole,) = denoiser_graphs(golden("transformer_stage4_tiny").dit_config(), Diffusion())
    assert set(whole.weights.values()) == set(golden("transformer_stage4_tiny").weights)
    for name, kind in (("vae_decode_stream", "decode"), ("vae_encode", "encode")):
        config = golden(name).vae_config()
        sources = [s for s in vae_graphs(config) if s.name.startswith(kind)]
        assert all(set(source.weights.values()) == set(golden(name).weights) for source in sources)
    stage = variant("matrix-stage4")
    (whole,) = denoiser_graphs(stage.dit, stage.diffusion)
    assert 1.9e9 < sum(p.numel() for p in whole.module.parameters()) < 2.1e9
    assert "control_blocks.14.norm1.linear.weight" in whole.weights.values()


def test_blocks_reach_every_weight():
    config = SMALL.dit
    embed, block, steered, head = denoiser_graphs(config, SMALL.diffusion, "block")
    assert block_instances(config) == {"block": [0, 1], "block_control": [2]}
    assert steered.weights["control.norm1.linear.weight"] == "control_blocks.{i-2}.norm1.linear.weight"
    assert block.weights["following.attn1.to_q.weight"] == "transformer_blocks.{j}.attn1.to_q.weight"
    assert head.weights["dit.proj_out.weight"] == embed.weights["dit.proj_out.weight"] == "proj_out.weight"


def test_the_stages_and_what_their_queues_show_the_network(golden):
    assert [v.name for v in variants()] == [NANO, "matrix-stage2", "matrix-stage3", "matrix-stage4"]
    levels = golden("scheduler_tables").tensors["stage4.T4_G4_W1_orig40_phases4.grouped"]
    assert [list(variant(name).fixed_levels()) for name in (NANO, "matrix-stage4")] == [levels[0].tolist()] * 2
    for options, says in (
        (Options("matrix-stage3", fold_levels=True, form="whole"), "levels of matrix-stage3 change"),
        (Options("matrix-stage4", fold_levels=True, form="block"), "add --form whole"),
        (Options("matrix-stage4", natten=True), "--natten: there is none"),
        (Options("matrix-stage4", task="video2world"), "has one task, world"),
        (Options("matrix-stage1"), "there are: nano-matrix, matrix-stage2"),
    ):
        with pytest.raises(InputError, match=says):
            model(options)


@pytest.fixture(scope="module")
def traced():
    return {}


def linked(config, levels, traced):
    (source,) = denoiser_graphs(config, Diffusion(), levels=levels)
    source = trace.distinct(source)
    return source, link(source, Segments(config, Diffusion(), "float32", levels).of(source), traced)


def case(golden, name):
    """The inputs of a golden case by name, and x0 as it follows from the official v."""
    file = golden("transformer_stage4_tiny").tensors
    x = file[f"case_{name}.in.hidden_states"].transpose(1, 2).contiguous()
    level = file[f"case_{name}.in.timestep"].float().expand(x.shape[0], x.shape[2])
    x0 = Schedule.of(Diffusion()).to_x0(file[f"case_{name}.out"].transpose(1, 2), x, level)
    given = {"x": x, "level": level.contiguous(), "position": torch.arange(x.shape[2], dtype=torch.float32)}
    given |= {"text": file[f"case_{name}.in.encoder_hidden_states"], "control": file[f"case_{name}.in.control_emb"]}
    return {key: value.numpy() for key, value in given.items()}, x0.numpy()


def run(model, given):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {i.name: given[i.name] for i in session.get_inputs()})[0]


def test_the_graph_gives_the_clean_latents_of_the_official_network(golden, traced):
    file = golden("transformer_stage4_tiny")
    source, graph = linked(file.dit_config(), None, traced)
    weights = {name: file.weights[key].numpy() for name, key in source.weights.items()}
    for name in "abcde":
        given, x0 = case(golden, name)
        assert np.abs(run(graph, given | weights) - x0).max() <= 2e-5


def test_fixed_levels_are_folded_with_all_that_follows_from_them(golden, traced):
    """What is left of modulation are numbers; the result is that of the same levels given."""
    file = golden("transformer_stage4_tiny")
    source, graph = linked(file.dit_config(), (0, 249, 499, 749, 999), traced)
    weights = {name: file.weights[key].numpy() for name, key in source.weights.items()}
    fold(graph, weights.get)
    left = {value.name for value in graph.graph.inputs} & set(weights)
    gone = {source.weights[name] for name in set(weights) - left}
    assert gone == {key for key in file.weights if "time_embedding" in key or "norm1.linear" in key
                    or "norm2.linear" in key or "norm_out.linear" in key}  # fmt: skip
    given, x0 = case(golden, "a")
    assert np.abs(run(graph, given | weights) - x0).max() <= 2e-5
