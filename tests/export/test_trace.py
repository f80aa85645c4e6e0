"""Graphs as readers see them: names, axes, dynamic shapes, no weight touched."""

from __future__ import annotations

import dataclasses

import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export import trace
from worldrt.export.graphs import GraphSource
from worldrt.export.link import Segment, link


@pytest.fixture(scope="module")
def graph(toy):
    return ir.to_proto(trace.export_onnx(trace.distinct(toy.source()))).graph


def dims(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_names_are_those_of_the_specs(graph):
    assert [v.name for v in graph.input] == ["state", "sin", "val_0", "first.weight", "first.bias", "second.weight"]
    assert [v.name for v in graph.output] == ["next_state", "sin_out", "val_0_out"]
    made = [name for node in graph.node for name in node.output]
    assert len(set(made)) == len(made) and not set(made) & {v.name for v in graph.input}


def test_axes_have_plain_names_or_none(graph):
    """TensorRT takes `2*rows` for the name of another axis."""
    assert dims(graph.input[0]) == ["batch", "rows", 0, 8]
    assert dims(graph.input[1]) == ["batch", "frames", 0]
    assert dims(graph.output[0]) == ["batch", "rows", 0, 8]
    inner = {d.dim_param for v in graph.value_info for d in v.type.tensor_type.shape.dim}
    assert inner <= {"", "batch", "rows", "frames"}


def test_no_weight_and_no_trace_of_the_machine_in_the_file(graph, toy):
    assert all(t.name not in toy.source().weights for t in graph.initializer)
    assert not any(node.doc_string or node.metadata_props for node in graph.node)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (2, 3, 5, 1), (1, 5, 3, 7), (3, 1, 2, 2)], ids=lambda s: "x".join(map(str, s))
)
def test_all_axes_are_dynamic(graph, toy, sizes):
    axes = dict(zip(("batch", "rows", "columns", "frames"), sizes, strict=True))
    torch.manual_seed(1)
    module = toy.Module()
    inputs = [torch.randn(spec.resolve(axes)) for spec in toy.source().inputs]
    feeds = dict(zip(("state", "sin", "val_0"), inputs, strict=True)) | module.state_dict()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", trace.OPSET)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString())
    actual = session.run(None, {name: value.detach().numpy() for name, value in feeds.items()})
    for ours, expected in zip(actual, module(*inputs), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), expected.detach(), rtol=1e-5, atol=1e-6)


def test_outputs_that_are_inputs_get_values_of_their_own():
    class Through(nn.Module):
        def forward(self, a, b):
            return b, b, a + 1

    specs = tuple(TensorSpec(name, "float32", ("batch",)) for name in ("a", "b"))
    outputs = tuple(TensorSpec(name, "float32", ("batch",)) for name in ("p", "q", "r"))
    model = ir.to_proto(trace.export_onnx(GraphSource("through", Through(), specs, outputs, {})))
    onnx.checker.check_model(model, full_check=True)
    one, two = torch.ones(4).numpy(), (2 * torch.ones(4)).numpy()
    p, q, r = ort.InferenceSession(model.SerializeToString()).run(None, {"a": one, "b": two})
    assert (p == two).all() and (q == two).all() and (r == two).all()


def test_a_wrong_spec_is_refused(toy):
    source = toy.source()
    wrong = dataclasses.replace(
        source, outputs=(TensorSpec("state_out", "float16", source.outputs[0].shape), *source.outputs[1:])
    )
    with pytest.raises(ValueError, match="declared state_out float16"):
        trace.export_onnx(wrong)


def test_tracing_is_silent(toy, capfd, recwarn):
    trace.export_onnx(trace.distinct(toy.source()))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_linked_segments_are_the_module_in_a_row():
    """Three layers from one trace give what the loop gives, with weights by their own names."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x, shift):
            return torch.tanh(self.linear(x)) + shift

    x, shift = (TensorSpec(name, "float32", ("batch", 6)) for name in ("x", "shift"))
    with torch.device("meta"):
        layer = Layer()
    names = {f"linear.{part}": f"layers.{{i}}.{part}" for part in ("weight", "bias")}
    whole = GraphSource("whole", nn.Module(), (x, shift), (TensorSpec("next_x", "float32", x.shape),), {})
    segment = Segment(GraphSource("layer", layer, (x, shift), (x,), names), key="layer", repeat=3)
    traced = {}
    model = link(whole, [segment], traced)
    assert list(traced) == ["layer"]
    weights = {
        f"layers.{i}.{part}": torch.randn((6, 6) if part == "weight" else 6)
        for i in range(3)
        for part in ("weight", "bias")
    }
    assert [v.name for v in model.graph.inputs] == ["x", "shift", *weights]
    value, shift_value = torch.randn(5, 6), torch.randn(5, 6)
    feeds = {"x": value, "shift": shift_value} | weights
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    (actual,) = session.run(["next_x"], {name: tensor.numpy() for name, tensor in feeds.items()})
    for i in range(3):
        value = torch.tanh(value @ weights[f"layers.{i}.weight"].T + weights[f"layers.{i}.bias"]) + shift_value
    torch.testing.assert_close(torch.from_numpy(actual), value, rtol=1e-5, atol=1e-6)
