"""Graphs with attention cut out of them, as ONNX files, compute what their modules do, for any frames and heads."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from worldrt.engine.builder import build
from worldrt.engine.bundle import Graph
from worldrt.engine.errors import InputError
from worldrt.engine.plans import BuildJob, Range, Target
from worldrt.export.families.cosmos import graphs as cosmos
from worldrt.export.families.cosmos import parts as cosmos_parts
from worldrt.export.families.cosmos.segments import segments
from worldrt.export.families.cosmos.variants import DiTConfig
from worldrt.export.families.cosmos.variants import variant as cosmos_variant
from worldrt.export.families.matrix import graphs as matrix
from worldrt.export.families.matrix import parts as matrix_parts
from worldrt.export.families.matrix.segments import Segments
from worldrt.export.families.matrix.variants import NANO, variant
from worldrt.export.link import link
from worldrt.export.plan import Options
from worldrt.export.trace import complete_axes, distinct, export_onnx
from worldrt.export.verify import AXES, random_inputs

TINY = DiTConfig(3, 32, 2, (1.0, 1.0, 1.0), condition_mask=True, adaln_rank=8, text_width=24)
WORLD = variant(NANO)
FAMILIES = ["cosmos", "matrix"]


def sources(family):
    """The graphs of a family's block form, and what each is linked from."""
    if family == "cosmos":
        made = cosmos.denoiser_graphs(TINY, "block", attention_cut=True)
        return [(source, segments(TINY, "float32", "float32", source)) for source in made]
    made = matrix.denoiser_graphs(WORLD.dit, WORLD.diffusion, "block", attention_cut=True)
    return [(source, Segments(WORLD.dit, WORLD.diffusion, "float32", None).of(source)) for source in made]


def difference(source, model):
    """Of all outputs between ONNX Runtime and torch, against the largest value."""
    generator = torch.Generator().manual_seed(0)
    weights = {n: 0.1 * torch.randn(p.shape, generator=generator) for n, p in source.module.named_parameters()}
    given = random_inputs(source.inputs, complete_axes(source.inputs, AXES))
    with torch.no_grad():
        expected = torch.func.functional_call(source.module, weights, tuple(map(torch.from_numpy, given.values())))
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    fed = given | {name: value.numpy() for name, value in weights.items()}
    actual = session.run(None, {i.name: fed[i.name] for i in session.get_inputs()})
    pairs = zip(actual, (expected,) if isinstance(expected, torch.Tensor) else expected, strict=True)
    return max(np.abs(a - e.numpy()).max() / np.abs(e.numpy()).max() for a, e in pairs)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_takes_any_number_of_heads(family):
    (source,) = (source for source, _ in sources(family) if source.name == "attend")
    assert not source.weights
    assert difference(source, export_onnx(source)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_linked_graphs_compute_what_their_modules_do(family):
    traced = {}
    for source, parts in sources(family):
        whole = distinct(source)
        model = link(whole, parts, traced) if parts else export_onnx(whole)
        assert difference(source, model) <= 1e-4, source.name


@pytest.mark.slow
@pytest.mark.tensorrt
def test_any_number_of_heads_is_attended_to_in_a_fused_kernel(tmp_path):
    """Of 2B, in half precision for SM89."""
    trt = pytest.importorskip("tensorrt_rtx")
    made = cosmos.denoiser_graphs(cosmos_variant("2B", "video2world").dit, "block", "float16", attention_cut=True)
    (source,) = (source for source in made if source.name == "attend")
    ir.save(export_onnx(source), tmp_path / "attend.onnx")
    graph = Graph("attend.onnx", "", source.inputs, source.outputs, "inputs", ())
    ranges = {"batch": (1, 2, 2), "frames": (1, 24, 24), "tokens": (1560, 3520, 3600), "heads": (1, 16, 16)}
    profile = {name: Range(*numbers) for name, numbers in ranges.items()}
    profile["context_frames"] = profile["frames"]
    target = Target(("8.9",))
    job = BuildJob("tensorrt_rtx", graph, tmp_path / "attend.onnx", tmp_path, "float16", profile, target)
    _, report = build(trt, job)
    assert any("_gemm_mha" in line for line in report.layers), "attention is not fused"


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"form": "whole"}, "--form whole"), ({"quantize": "fp8"}, "--quantize fp8"), ({"natten": True}, "--natten")],
)
def test_what_does_not_go_with_it_is_refused(change, reason):
    with pytest.raises(InputError, match=f"--attention_cut: it does not go with {reason}"):
        cosmos_parts.model(Options("nano", attention_cut=True, **change))
    if change == {"form": "whole"}:
        with pytest.raises(InputError, match="--attention_cut"):
            matrix_parts.model(Options("nano-matrix", attention_cut=True, **change))
