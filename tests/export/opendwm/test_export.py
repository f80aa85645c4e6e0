"""`nano-opendwm` as a bundle: manifest, graphs by ONNX Runtime, command line, and engines ahead of time."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from worldrt.engine.build import build_plan
from worldrt.engine.bundle import Layout, Place, Stream, load_bundle, read_manifest, write_manifest
from worldrt.engine.jobs import Wish, jobs_of
from worldrt.engine.plans import Target
from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import numbered, open_weights
from worldrt.export import cli, trace
from worldrt.export.families.opendwm.blocks import block_graphs, chain_of
from worldrt.export.families.opendwm.dit import Switches
from worldrt.export.families.opendwm.graphs import INPUTS, View, denoiser_graphs, vae_graphs
from worldrt.export.families.opendwm.nano import FILE
from worldrt.export.families.opendwm.segments import Segments
from worldrt.export.families.opendwm.variants import NANO, variant
from worldrt.export.graphs import GraphSource
from worldrt.export.modules.clip import clip_graph
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle
from worldrt.export.verify import verify_graph
from worldrt.runtime import cli as run_cli

from ...fakes.graph_specs import assert_specs_hold

SMALL = variant(NANO)
VIEW = View.of(SMALL)


def sources(dtype):
    clips = [clip_graph(config, dtype) for config in (SMALL.clip, SMALL.clip2)]
    return [*denoiser_graphs(SMALL.dit, VIEW, dtype), *vae_graphs(SMALL.vae, dtype), *clips]


@pytest.mark.parametrize("source", sources("bfloat16"), ids=lambda s: s.name)
def test_a_module_does_what_its_specs_say(source):
    assert_specs_hold(source, {"batch": 2, "frames": 3, "rows": 2, "columns": 4, "text": 7})
    assert set(source.weights) == {name for name, _ in source.module.named_parameters()}


def test_keys_and_size_are_those_of_the_published_checkpoint(golden):
    g = golden("dit_b")
    made = denoiser_graphs(g.config, View(3, 4, 6))
    keys = {key for source in made for key in source.weights.values()}
    last = f"transformer_blocks.{g.config.layers - 1}.attn"
    silent = {f"{last}.add_q_proj.weight", f"{last}.add_q_proj.bias", f"{last}.norm_added_q.weight"}
    assert keys == set(g.weights) - silent
    real = variant("opendwm")
    made = denoiser_graphs(real.dit, View.of(real))
    assert View.of(real) == View(3, 11, 19)
    # 2.11 billion with the text's last queries
    assert 2.08e9 < sum(p.numel() for source in made for p in source.module.parameters()) < 2.14e9


@pytest.mark.parametrize("source", block_graphs(SMALL.dit, VIEW, "bfloat16"), ids=lambda s: s.name)
def test_a_graph_of_the_block_form_does_what_its_specs_say(source):
    axes = {"batch": 2, "frames": 3, "views": 4, "context_frames": 5, "context_views": 6, "text": 7}
    assert_specs_hold(source, axes)
    assert set(source.weights) == {name for name, _ in source.module.named_parameters()}


@pytest.mark.parametrize("model", [NANO, "opendwm"])
def test_blocks_reach_every_weight_of_the_network(model):
    """Each graph in turn, with the number of its block in the names of its weights."""
    v = variant(model)
    chain, made = chain_of(v.dit), {source.name: source for source in block_graphs(v.dit, View.of(v))}
    assert len(chain) == len(v.dit.temporal) + len(v.dit.crossview) - 1
    names = [("embed", 0), *zip(chain, range(len(chain)), strict=True), ("head", 0), ("layout", 0)]
    assert {name for name, _ in names} == set(made)
    reached = {numbered(key, i) for name, i in names for key in made[name].weights.values()}
    assert reached == {key for source in denoiser_graphs(v.dit, View.of(v)) for key in source.weights.values()}


def test_a_graph_is_linked_from_parts_that_reach_every_weight():
    source, _ = denoiser_graphs(SMALL.dit, VIEW)
    segments = Segments(SMALL.dit, VIEW, "float32").of(source)
    reached = {key for segment in segments for key in segment.source.weights.values()}
    assert reached >= set(source.weights)
    kinds = {segment.key for segment in segments}
    assert len(segments) == 1 + SMALL.dit.stages + 4 + 4 + 2 + 1
    assert len(kinds) == 1 + SMALL.dit.stages + 2 + 1 + 1 + 1, "traced once for each kind"


@pytest.mark.slow
def test_the_manifest_says_all_that_a_runtime_needs(opendwm_bundle, tmp_path):
    m = load_bundle(opendwm_bundle).manifest
    world = m.denoisers["world"]
    assert (m.family, m.variant, world.form, world.precision, world.blocks) == ("opendwm", NANO, "whole", "float32", 4)
    binds = {name: c.bind for name, c in world.conditions.items()}
    assert {name for name, bind in binds.items() if bind == "constant"} == {"position", "view"}
    assert {name for name, bind in binds.items() if bind == "frame"} == set(INPUTS) - {"x", "position", "view"}
    assert (world.sampler.kind, world.sampler.steps, world.sampler.shift) == ("flow_euler", 24, 3.0)
    assert abs(world.sampler.sigma_min - 8.9286) < 1e-3
    assert world.stream == Stream(groups=6, group=1, history=0, fill="cold") and world.guidance.scale == 4
    assert world.layout == Layout(("box", "map"), 0.1255, 3, 4)
    assert set(world.graphs) == {"denoise", "layout"} and set(m.vae.graphs) == {"encode", "decode"}
    assert (m.vae.temporal, m.vae.spatial) == (1, 8)
    assert m.text.place == Place(24, 0) and set(m.texts) == {"clip", "clip2"}
    assert m.texts["clip2"].place == Place(0, 24, 24) and m.texts["clip"].place == Place(0, 0, 0)
    assert {"clip/tokenizer.json", "clip2/tokenizer.json", "text/tokenizer.json"} == set(m.files)
    assert m.weights.files.keys() == {
        "ctsd.safetensors", "vae/diffusion_pytorch_model.safetensors",
        *(f"text_encoder{suffix}/model.safetensors" for suffix in ("", "_2", "_3")),
    }  # fmt: skip
    assert (opendwm_bundle / "checkpoint" / FILE).exists()
    write_manifest(tmp_path, m)
    assert read_manifest(tmp_path) == m


@pytest.mark.slow
def test_the_bundle_can_be_inspected(opendwm_bundle, capsys):
    assert run_cli.main(["inspect", str(opendwm_bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "opendwm" and found["components"]["world"]["graphs"]["layout"]["state"] == "yes"


@pytest.mark.slow
def test_the_block_form_does_what_modules_do(tmp_path):
    """Every graph by ONNX Runtime, with views and frames of other numbers than they were traced with."""
    options = Options(NANO, form="block", components=("world",))
    report = export_bundle(options, tmp_path / "b", family="opendwm", verified=True, torch_program=False)
    assert len({row.graph for row in report.verified}) == 2 + 4 + 1
    assert all(row.passed for row in report.verified), report.verified
    bundle = load_bundle(tmp_path / "b")
    spec = bundle.manifest.denoisers["world"]
    assert (spec.form, spec.blocks) == ("block", 6) and spec.chain == chain_of(SMALL.dit)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["world/denoise", "world/layout", "vae/decode", "clip2/encode"])
def test_graphs_do_what_modules_do(opendwm_bundle, name):
    """By ONNX Runtime, with the checkpoint's own weights."""
    bundle = load_bundle(opendwm_bundle)
    part, _, graph = name.partition("/")
    made = {
        "world": lambda: denoiser_graphs(SMALL.dit, VIEW),
        "vae": lambda: vae_graphs(SMALL.vae),
        "clip2": lambda: [clip_graph(SMALL.clip2)],
    }[part]()
    source = trace.distinct(next(source for source in made if source.name == graph))
    component = bundle.manifest.components()[part]
    rows = verify_graph(bundle, component.graphs[graph], source, open_weights(bundle, component))
    assert all(row.passed for row in rows), rows


def test_flags_of_other_families_are_refused(capsys, tmp_path):
    for flags, says in (
        (["--model", NANO, "--fold_levels"], "it is about The Matrix"),
        (["--model", "nano", "--model_config", str(tmp_path)], "it is about OpenDWM"),
    ):
        assert cli.main([*flags, "-o", str(tmp_path / "b")]) == 2
        assert says in capsys.readouterr().err


class Velocity(torch.nn.Module):
    """The network with all that official data can switch off."""

    def __init__(self, dit):
        super().__init__()
        self.dit = dit

    def forward(self, x, level, text, pooled, camera, residual, position, view, crossview, temporal, mask):
        switches = Switches(crossview, temporal, mask)
        return self.dit(x, level, text, pooled, camera, residual, position, view, switches)


def test_the_layout_graph_reproduces_golden_residuals(golden, tmp_path):
    """By ONNX Runtime, of one frame."""
    import onnxruntime

    g = golden("dit_a")
    image, residual = g.image("t3")[:, 0].numpy(), g.inputs("t3")[5][:, 0].numpy()
    made = run_static(g.adapter, {"image": image}, residual, tmp_path / "a.onnx", onnxruntime)
    assert np.abs(made - residual).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name"),
    [("dit_a", "t3"), ("dit_a", "t6_cfg"), ("dit_a", "t3_disable"), ("dit_b", "t6"), ("dit_b", "t3_mask")],
)
def test_graphs_reproduce_golden_tensors(golden, file, name, tmp_path):
    """Network and adapter by ONNX Runtime."""
    import onnxruntime

    g = golden(file)
    case, inputs = g.case(name), g.inputs(name)
    mask = case.get("in.crossview_attention_mask", torch.ones(inputs[0].shape[0], 3, 3)).float()
    given = [*inputs, case["in.disable_crossview"].float(), case["in.disable_temporal"].float(), mask]
    names = [*INPUTS, "no_crossview", "no_temporal", "mask"]
    arrays = {n: value.numpy() for n, value in zip(names, given, strict=True)}
    expected = case["out"].permute(0, 3, 1, 2, 4, 5).numpy()
    made = run_static(Velocity(g.dit), arrays, expected, tmp_path / "v.onnx", onnxruntime)
    assert np.abs(made - expected).max() <= 5e-5
    image, residual = g.image(name)[:, 0].numpy(), inputs[5][:, 0].numpy()
    made = run_static(g.adapter, {"image": image}, residual, tmp_path / "a.onnx", onnxruntime)
    assert np.abs(made - residual).max() <= 1e-5


def run_static(module, arrays, like, path, onnxruntime):
    import onnx_ir as ir

    specs = tuple(TensorSpec(name, "float32", value.shape) for name, value in arrays.items())
    weights = {name: name for name, _ in module.named_parameters()}
    source = GraphSource("golden", module, specs, (TensorSpec("made", "float32", like.shape),), weights)
    state = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    ir.save(trace.export_onnx(GraphSource(**{**vars(source), "module": module.to("meta")})), path)
    module.to_empty(device="cpu").load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {spec.name for spec in session.get_inputs()}
    everything = arrays | state
    return session.run(None, {name: everything[name] for name in taken})[0]


@pytest.mark.slow
def test_all_graphs_of_the_command_line_pass_their_check(tmp_path):
    """In float16, from a state dict that was pickled, with torch beside it."""
    report = export_bundle(Options(NANO, precision="fp16"), tmp_path / "b", family="opendwm", verified=True)
    assert len(report.verified) == 2 + 3 + 1 + 4 and all(row.passed for row in report.verified), report.verified


@pytest.mark.slow
@pytest.mark.tensorrt
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT-RTX")
def test_graphs_compile_ahead_of_time(tmp_path):
    """For SM89 in FP16, with attention in fused kernels."""
    options = Options(NANO, precision="fp16")
    export_bundle(options, tmp_path / "b", family="opendwm", verified=False, torch_program=False)
    bundle = load_bundle(tmp_path / "b")
    wish = Wish("tensorrt_rtx", Target(("8.9",)))
    for part, component in bundle.manifest.components().items():
        for job in jobs_of(bundle, part, open_weights(bundle, component), wish):
            report = build_plan(job, tmp_path / "p.plan")
            assert report.plan_bytes == (tmp_path / "p.plan").stat().st_size, job.name
            if job.name == "world/denoise":
                fused = sum(" _gemm_mha" in line for line in report.layers)
                dit = SMALL.dit
                assert fused >= dit.layers + len(dit.dual) + len(dit.temporal) + len(dit.crossview)
