"""Static quantisation of graphs: against the formulas in float64, and what is chosen and what is kept."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from worldrt.engine.bundle import Graph, Weight, load_bundle
from worldrt.engine.device import HostDevice, host_buffer
from worldrt.engine.errors import InputError
from worldrt.engine.session import open_session
from worldrt.engine.tensors import TensorSpec
from worldrt.export.quantize.find import attentions, block_outputs
from worldrt.export.quantize.fp4 import expand_fp4
from worldrt.export.quantize.scheme import FP8, INT8, MXFP8, NVFP4, double_scales, scales, scheme_of
from worldrt.export.quantize.softmax import expand_fp8_attention
from worldrt.export.quantize.static import KEPT, chosen, insert, ranged


def e4m3(values):
    """The nearest number of E4M3 in float64, ties to even mantissas: 3 bits, least exponent -6, largest 448."""
    values = np.clip(np.asarray(values, np.float64), -448, 448)
    exponent = np.floor(np.log2(np.maximum(np.abs(values), 2.0**-6)))
    step = 2.0 ** (np.maximum(exponent, -6) - 3)
    return np.clip(np.rint(values / step) * step, -448, 448)


def int8(values):
    return np.clip(np.rint(np.asarray(values, np.float64)), -128, 127)


def fake(values, scale, rounding):
    return rounding(np.asarray(values, np.float64) / scale) * scale


def toy(kind=TensorProto.FLOAT, width=16):
    """Three blocks of one layer each; an attention before the layer of the middle one."""
    numpy_kind = {TensorProto.FLOAT: np.float32, TensorProto.BFLOAT16: ml_dtypes.bfloat16}[kind]
    rng = np.random.default_rng(1)
    weights = {f"blocks.{i}.out.weight": (rng.standard_normal((width, width)) / 4).astype(numpy_kind) for i in range(3)}
    weights["blocks.1.out.weight"][3] = 0
    nodes, x = [], "x"
    for i, name in enumerate(weights):
        if i == 1:
            nodes.append(helper.make_node("Reshape", [x, "heads"], ["h"]))
            nodes.append(helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Attention", ["t", "t", "t"], ["a"], name="attend"))
            nodes.append(helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", ["b", "flat"], ["c"]))
        nodes.append(helper.make_node("Transpose", [name], [f"w{i}"], perm=[1, 0]))
        nodes.append(helper.make_node("MatMul", ["c" if i == 1 else x, f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Add", [x, f"m{i}"], [f"s{i}" if i < 2 else "y"]))
        x = f"s{i}"
    shape = ["batch", "rows", width]
    constants = {"heads": np.array([0, 0, 4, width // 4]), "flat": np.array([0, 0, width])}
    initializers = [numpy_helper.from_array(v, n) for n, v in {**weights, **constants}.items()]
    entries = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph(nodes, "toy", entries[:1], entries[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    from onnx.shape_inference import infer_shapes

    records = tuple(Weight(name, name, "float32", (width, width)) for name in weights)
    return ir.from_proto(infer_shapes(model)), weights, records


def run(tmp_path, model, x, name="toy.onnx"):
    ir.save(model, tmp_path / name)
    specs = tuple(TensorSpec(n, "float32", ("batch", "rows", x.shape[2])) for n in "xy")
    graph = Graph(name, "", specs[:1], specs[1:], "external", ())
    session = open_session("onnxruntime", tmp_path / name, graph, HostDevice(), weight_root=tmp_path)
    call = session.bind({}, {"x": host_buffer(x)})
    call.run()
    return call["y"].numpy().astype(np.float64)


def emulated(x, weights, amax, scheme, rounding, softmax):
    """The toy with its middle block quantised, in float64."""
    first, middle, last = (w.astype(np.float64) for w in weights.values())
    x = np.asarray(x, np.float64)
    x = x + x @ first.T
    heads = x.reshape(*x.shape[:2], 4, 4).transpose(0, 2, 1, 3)
    if scheme.attention:
        heads = fake(heads, np.float32(amax["t"] / scheme.largest), rounding)
    scores = np.exp(heads @ heads.transpose(0, 1, 3, 2) / 2)
    scores /= scores.sum(-1, keepdims=True)
    if softmax:
        scores = fake(scores, np.float32(1 / 448), rounding)
    attended = (scores @ heads).transpose(0, 2, 1, 3).reshape(x.shape)
    channel = np.abs(middle).max(1, keepdims=True)
    scale = np.where(channel > 0, channel / scheme.largest, 1).astype(np.float32)
    attended = fake(attended, np.float32(amax["c"] / scheme.largest), rounding)
    x = x + attended @ fake(middle, scale, rounding).T
    return x + x @ last.T


@pytest.mark.parametrize(("scheme", "rounding"), [(FP8, e4m3), (INT8, int8)])
def test_a_quantised_layer_is_that_of_the_formula(tmp_path, scheme, rounding):
    model, weights, records = toy()
    x = np.random.default_rng(2).standard_normal((2, 20, 16)).astype(np.float32)
    exact = run(tmp_path, toy()[0], x)
    found = chosen(model.graph, records)
    amax = {"c": 5.0, "t": 6.0}
    assert {value.name for value in ranged(found, scheme)} == ({"c", "t"} if scheme.attention else {"c"})
    insert(model.graph, found, scheme, amax, lambda name, block: np.abs(weights[name]).max(1))
    actual = run(tmp_path, model, x)
    expected = emulated(x, weights, amax, scheme, rounding, softmax=False)
    # a value at the middle of two steps may fall to either side; all others agree
    assert np.quantile(np.abs(actual - expected), 0.8) < 2e-6
    assert 1e-4 < np.linalg.norm(actual - exact) / np.linalg.norm(exact) < 0.1


def test_attention_over_fp8_has_its_softmax_in_fp8_where_it_is_measured(tmp_path):
    model, weights, records = toy()
    x = np.random.default_rng(2).standard_normal((2, 20, 16)).astype(np.float32)
    amax = {"c": 5.0, "t": 6.0}
    insert(model.graph, chosen(model.graph, records), FP8, amax, lambda name, block: np.abs(weights[name]).max(1))
    assert expand_fp8_attention(model.graph) == 1
    assert not any(node.op_type == "Attention" for node in model.graph)
    actual = run(tmp_path, model, x)
    with_it, without = (emulated(x, weights, amax, FP8, e4m3, softmax=softmax) for softmax in (True, False))
    assert np.median(np.abs(actual - with_it)) < 1e-6 and np.median(np.abs(actual - without)) > 1e-4


def blocked(weight, size):
    """(rows, blocks, size) of a weight, and the largest magnitude of each block."""
    blocks = weight.astype(np.float64).reshape(len(weight), -1, size)
    return blocks, np.abs(blocks).max(2)


def mx(weight):
    """OCP MX: E4M3 with the least power of two that keeps the largest number of a block within 448."""
    blocks, amax = blocked(weight, 32)
    scale = 2.0 ** np.ceil(np.log2(np.where(amax > 0, amax / 448, 1)))[..., None]
    return fake(blocks, scale, e4m3).reshape(weight.shape)


def nvfp4(weight):
    """E2M1 with an E4M3 scale, rounded up, for every 16 numbers, and a power of two for all."""
    blocks, amax = blocked(weight, 16)
    unit = 2.0 ** np.ceil(np.log2(amax.max() / 6 / 448))
    grid = np.unique(np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64))
    grid = grid[grid > 0]  # not numbers are not greater
    scale = (grid[np.searchsorted(grid, amax / 6 / unit)] * unit)[..., None]
    e2m1 = (blocks / scale).astype(ml_dtypes.float4_e2m1fn).astype(np.float64)
    return (e2m1 * scale).reshape(weight.shape)


@pytest.mark.parametrize(("scheme", "rounded", "error"), [(MXFP8, mx, 0.04), (NVFP4, nvfp4, 0.14)])
def test_weights_alone_are_quantised_block_by_block(tmp_path, scheme, rounded, error):
    model, weights, records = toy(width=64)
    x = np.random.default_rng(2).standard_normal((2, 9, 64)).astype(np.float32)
    found = chosen(model.graph, records)
    assert ranged(found, scheme) == []
    insert(model.graph, found, scheme, {}, lambda name, size: blocked(weights[name], size)[1])
    assert expand_fp4(model.graph) == (scheme is NVFP4)
    exact, _, _ = toy(width=64)
    name = "blocks.1.out.weight"
    weight = rounded(weights[name])
    assert 0.01 < np.linalg.norm(weight - weights[name]) / np.linalg.norm(weights[name]) < error
    exact.graph.initializers[name].const_value = ir.tensor(weight.astype(np.float32), name=name)
    actual, expected = run(tmp_path, model, x), run(tmp_path, exact, x)
    assert np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max()


def test_scales_of_scales_are_rounded_up_and_lose_nothing_in_half_precision():
    amax = np.concatenate([np.exp(np.random.default_rng(3).uniform(-4, 0, 300)), [0.0]])
    steps, unit = double_scales(amax)
    product = steps.astype(np.float64) * unit
    assert (
        np.log2(unit) == round(np.log2(unit)) and (product >= amax / 6).all() and (product[:-1] < amax[:-1] / 5).all()
    )
    for half in (np.float16, ml_dtypes.bfloat16):
        assert (product.astype(half).astype(np.float64) == product).all()


def test_an_attention_that_is_not_in_fp8_stays_whole():
    model, _, _ = toy()
    assert expand_fp8_attention(model.graph) == 0


def test_halves_dequantise_with_the_scale_that_quantised():
    """A scale that were rounded between the two would be a factor on the whole channel."""
    model, weights, records = toy(TensorProto.BFLOAT16)
    insert(
        model.graph, chosen(model.graph, records), FP8, {"c": 5.0, "t": 6.0}, lambda n, block: np.abs(weights[n]).max(1)
    )
    inits = model.graph.initializers
    fine = inits["blocks.1.out.weight.scale"].const_value.numpy()
    coarse = inits["blocks.1.out.weight.scale.BFLOAT16"].const_value.numpy()
    assert fine.dtype == np.float32 and (fine == coarse.astype(np.float32)).all()
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            assert node.outputs[0].dtype == node.inputs[1].dtype == ir.DataType.BFLOAT16


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.FLOAT16])
def test_scales_saturate_nothing_and_are_no_larger_than_they_must_be(dtype):
    amax = np.concatenate([10.0 ** np.random.default_rng(3).uniform(-6, 4, 200), [0.0]])
    made = scales(amax, FP8, dtype)
    assert made.dtype == dtype.numpy() and made[-1] == 1
    exact = amax[:-1] / 448
    below = np.nextafter(made[:-1], np.zeros((), made.dtype)).astype(np.float64)
    assert (made[:-1].astype(np.float64) >= exact).all() and (below < exact).all()


def test_e4m3_of_this_test_is_that_of_ml_dtypes():
    rng = np.random.default_rng(4)
    values = rng.uniform(-1, 1, 4000) * 10.0 ** rng.uniform(-5, np.log10(448), 4000)
    values = np.concatenate([values, [448, -448, 0, 2.0**-9]])
    np.testing.assert_array_equal(e4m3(values), values.astype(ml_dtypes.float8_e4m3fn).astype(np.float64))


@pytest.fixture(scope="module")
def denoise(nano_bundle):
    bundle = load_bundle(nano_bundle)
    graph = bundle.manifest.denoisers["video2world"].graphs["denoise"]
    return ir.load(bundle.path(graph.file)), graph


def test_the_ends_and_what_modulates_stay(denoise):
    model, graph = denoise
    found = chosen(model.graph, graph.weights)
    names = {linear.name for linear in found}
    assert {linear.block for linear in found} == {1, 2} and not any(KEPT.search(name) for name in names)
    kinds = {name.partition("blocks.1.")[2] for name in names if "blocks.1." in name}
    assert kinds == {
        *(f"projection.to_{part}.weight" for part in "qkv"),
        *(f"rest.cross_attention.to_{part}.weight" for part in "qkv"),
        "rest.output.weight", "rest.cross_attention.output.weight", "rest.mlp_in.weight", "rest.mlp_out.weight",
    }  # fmt: skip
    assert len(list(attentions(found))) == 4


def test_a_pattern_keeps_more(denoise):
    model, graph = denoise
    found = chosen(model.graph, graph.weights, re.compile(r"mlp_out|rest\.output"))
    assert found and not any("mlp_out" in linear.name or "rest.output" in linear.name for linear in found)
    assert len(list(attentions(found))) == 2  # those of self-attention are kept with the layer that they feed


def test_blocks_end_in_their_last_sum(denoise):
    model, graph = denoise
    ends = block_outputs(model.graph, [weight.name for weight in graph.weights])
    assert list(ends) == ["0", "1", "2", "3"] and len({id(value) for value in ends.values()}) == 4
    assert all(value.producer().op_type == "Add" for value in ends.values())


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="expected one of fp8, int8_static"):
        scheme_of("fp4")
