"""What follows from constants and weights alone, computed at export: modulation by noise levels that never change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from worldrt.export.passes.shadow import shadow

Array = np.ndarray[Any, Any]


def fold(model: ir.Model, weights: Callable[[str], Array | None]) -> None:
    """Replace such values by initializers, in place. `weights` gives the tensor of a weight input, None for others.

    A value that follows from weights without any constant (a transposed matrix) stays as it is. All is computed in
    float32, and rounded at the end to what the graph computes in.
    """
    graph = model.graph
    names = {value.name or "" for value in graph.inputs if weights(value.name or "") is not None}
    dtypes = _dtypes(model)
    foldable = _foldable(graph, names, dtypes)
    edge = [
        value
        for node in graph
        for value in node.outputs
        if value in foldable and (value.is_graph_output() or any(user not in foldable for user in _users(value)))
    ]
    computed = _computed(model, [value.name or "" for value in edge], weights)
    for value in edge:
        dtype = dtypes[value.name or ""]
        array = computed[value.name or ""]
        stored = ir.Value(name=f"{value.name}.folded", type=ir.TensorType(dtype), shape=ir.Shape(array.shape))
        stored.const_value = ir.tensor(array.astype(dtype.numpy()), dtype=dtype, name=stored.name)
        graph.register_initializer(stored)
        ir.convenience.replace_all_uses_with(value, stored)
    common.RemoveUnusedNodesPass()(model)
    for value in [v for v in graph.inputs if v.name in names and not v.uses()]:
        graph.inputs.remove(value)


def _foldable(graph: ir.Graph, weights: set[str], dtypes: Mapping[str, ir.DataType]) -> set[Any]:
    """Values and nodes that follow from at least one constant and from nothing but constants and weights. Numbers that
    only say how a weight is cut or turned are no such constants."""
    constant: set[Any] = set(graph.initializers.values())
    known = constant | {value for value in graph.inputs if value.name in weights}
    found: set[Any] = set()
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if not all(value in known for value in inputs):
            continue
        known |= set(node.outputs)
        numbers = [v for v in inputs if v in constant and dtypes[v.name or ""] in _FLOATS]
        if numbers or all(value in constant for value in inputs):
            constant |= set(node.outputs)
            found |= {node, *node.outputs}
    return found


_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _dtypes(model: ir.Model) -> dict[str, ir.DataType]:
    """The dtype of every value by name; passes leave some without."""
    typed = model.clone()
    common.ShapeInferencePass()(typed)
    graph = typed.graph
    values = (*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs))
    return {value.name or "": value.dtype for value in values if value.dtype is not None}


def _users(value: ir.Value) -> list[ir.Node]:
    return [node for node, _ in value.uses()]


def _computed(model: ir.Model, wanted: list[str], weights: Callable[[str], Array | None]) -> dict[str, Array]:
    """Values by name, node by node, so that one weight is in memory at a time."""
    twin = model.clone()
    shadow(twin, set())
    graph = twin.graph
    values = {name: _array(value) for name, value in graph.initializers.items()}
    needed = _needed(graph, set(wanted))
    for node in graph:
        if node not in needed:
            continue
        given: dict[str, Array] = {}
        for value in node.inputs:
            if value is not None and value.name:
                array = values[value.name] if value.name in values else weights(value.name)
                assert array is not None
                given[value.name] = array
        made = ReferenceEvaluator(_alone(node, given, twin.opset_imports[""])).run(None, given)
        values |= {value.name or "": array for value, array in zip(node.outputs, made, strict=True)}
    return {name: np.asarray(values[name]) for name in wanted}


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()


def _needed(graph: ir.Graph, wanted: set[str]) -> set[ir.Node]:
    """The nodes that lead to some values."""
    names, needed = set(wanted), set()
    for node in reversed(list(graph)):
        if names & {value.name for value in node.outputs}:
            needed.add(node)
            names |= {value.name or "" for value in node.inputs if value is not None}
    return needed


def _alone(node: ir.Node, given: dict[str, Array], opset: int) -> onnx.ModelProto:
    """A node as a model of its own."""
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(value.name or "") for value in node.outputs]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "node", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
