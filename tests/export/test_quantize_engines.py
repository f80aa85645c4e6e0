"""Quantised nano denoisers as engines: TensorRT-RTX compiles them ahead of time, on a CPU."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from worldrt.engine.build import build_plan
from worldrt.engine.bundle import load_bundle
from worldrt.engine.errors import UnsupportedError
from worldrt.engine.plans import BuildJob, Range, Target
from worldrt.engine.weights import open_weights
from worldrt.export.quantize.calibrate import weight_amax
from worldrt.export.quantize.scheme import FP8, INT8, MXFP8, NVFP4
from worldrt.export.quantize.static import chosen, insert, ranged

pytestmark = pytest.mark.tensorrt
pytest.importorskip("tensorrt_rtx")
TASK = "video2world"
PROFILE = {
    "batch": Range(1, 2, 2), "frames": Range(1, 2, 5), "rows": Range(4, 5, 8), "columns": Range(8, 8, 8),
    "text": Range(64, 512, 512),
}  # fmt: skip


@pytest.fixture
def quantized(half_bundle, tmp_path):
    """Makes a build job of the denoiser, quantised with ranges as good as any."""

    def make(scheme, *capabilities, profile=PROFILE):
        bundle = load_bundle(half_bundle)
        spec = bundle.manifest.denoisers[TASK]
        graph = spec.graphs["denoise"]
        model, store = ir.load(bundle.path(graph.file)), open_weights(bundle, spec)
        layers, keys = chosen(model.graph, graph.weights), {weight.name: weight.key for weight in graph.weights}
        amax = {value.name: 6.0 for value in ranged(layers, scheme)}
        insert(model.graph, layers, scheme, amax, lambda name, block: weight_amax(store, keys[name], block))
        path = tmp_path / "denoise.onnx"
        ir.save(model, path)
        target = Target(capabilities)
        return BuildJob("tensorrt_rtx", graph, path, bundle.weight_root, spec.precision, profile, target)

    return make


def inputs_of(line):
    """The types that a compiled layer takes."""
    return re.findall(r"(\w+)\[", line.partition(": ")[2].partition(" -> ")[0])


def kernels(report, kind):
    return [line for line in report.layers if line.startswith(kind) or kind in line.partition(":")[0]]


@pytest.mark.parametrize("capability", ["8.9", "12.0"])
def test_fp8_layers_and_attention_are_compiled_in_fp8(quantized, tmp_path, capability):
    report = build_plan(quantized(FP8, capability), tmp_path / "plan")
    names = " ".join(line for line in kernels(report, "gemm ") if "FP8" in inputs_of(line))
    for block, quantised in ((0, False), (1, True), (2, True), (3, False)):  # the ends stay
        for layer in (5, 8, 11, 14, 15):
            assert (f"middle.{block}.node_linear_{layer}_" in names) is quantised, (block, layer)
    attention = kernels(report, "_gemm_mha")
    assert len(attention) == 8
    assert sum(set(inputs_of(line)) == {"FP8"} for line in attention) == 4
    assert not any("not in FP8" in text for text in report.warnings)


def test_int8_layers_are_compiled_in_int8_for_all_gpus_at_once(quantized, tmp_path):
    report = build_plan(quantized(INT8, "8.0", "8.9", "12.0"), tmp_path / "plan")
    assert sum("Int8" in inputs_of(line) for line in kernels(report, "gemm ")) >= 3 * 2
    assert all("Int8" not in inputs_of(line) for line in kernels(report, "_gemm_mha"))


def test_a_gpu_without_fp8_is_named(quantized, tmp_path):
    with pytest.raises(UnsupportedError, match=r"compute capability 8\.9 or later.*int8_static"):
        build_plan(quantized(FP8, "8.0"), tmp_path / "plan")


def test_short_sequences_keep_attention_in_half_precision(quantized, tmp_path):
    """There is no FP8 kernel below 32 tokens; the layers are in FP8 all the same, and a warning says so."""
    short = PROFILE | {"rows": Range(1, 5, 8)}
    report = build_plan(quantized(FP8, "8.9", profile=short), tmp_path / "plan")
    assert any("attention is not in FP8" in text for text in report.warnings)
    assert not any("FP8" in inputs_of(line) for line in kernels(report, "_gemm_mha"))
    assert any("FP8" in inputs_of(line) for line in kernels(report, "gemm "))


@pytest.mark.parametrize(
    ("scheme", "capabilities", "bytes_each"),
    [(MXFP8, ("8.9", "12.0"), 1 + 2 / 32), (NVFP4, ("12.0",), 0.5 + 1 / 16)],
)
def test_weights_alone_take_the_bytes_of_their_numbers_and_scales(
    quantized, tmp_path, scheme, capabilities, bytes_each
):
    job = quantized(scheme, *capabilities)
    report = build_plan(job, tmp_path / "plan")
    model = ir.load(job.path)
    weights = [node.inputs[0] for node in model.graph if node.op_type == "QuantizeLinear"]
    numbers = sum(int(np.prod(value.shape.numpy())) for value in weights)
    everything = sum(int(np.prod(w.shape)) for w in job.graph.weights)
    in_half_precision = 2 * (everything - numbers)
    assert report.weight_bytes == pytest.approx(in_half_precision + numbers * bytes_each, rel=0.02)


def test_a_gpu_without_fp4_is_named(quantized, tmp_path):
    with pytest.raises(UnsupportedError, match="FP4 needs Blackwell"):
        build_plan(quantized(NVFP4, "8.9"), tmp_path / "plan")


def test_quantised_weights_are_folded(quantized, half_bundle, tmp_path):
    """One byte for each number of a quantised layer, where two were."""
    quantised = build_plan(quantized(FP8, "8.9"), tmp_path / "plan")
    bundle = load_bundle(half_bundle)
    graph = bundle.manifest.denoisers[TASK].graphs["denoise"]
    plain = build_plan(replace(quantized(FP8, "8.9"), path=bundle.path(graph.file)), tmp_path / "other")
    layers = chosen(ir.load(bundle.path(graph.file)).graph, graph.weights)
    numbers = sum(int(np.prod(linear.weight.shape.numpy())) for linear in layers)
    assert plain.weight_bytes - quantised.weight_bytes == pytest.approx(numbers, rel=0.02)
