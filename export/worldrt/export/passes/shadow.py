"""A half-precision graph as one that computes in float32 on the same weights: CPUs lack most bfloat16 kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from worldrt.engine.tensors import TensorSpec

_HALVES = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)


def shadow(model: ir.Model, weights: set[str], *, keep_rounding: bool = False) -> None:
    """Rewrite in place. Weights keep their stored dtype and get a Cast; everything else becomes float32.

    With `keep_rounding`, a Cast to half precision that is followed by Casts back to float32 only still rounds.
    """
    graph = model.graph
    for value in (*graph.inputs, *graph.initializers.values()):
        if value.dtype in _HALVES and value.name in weights:
            _widen(graph, value)
        elif value.dtype in _HALVES:
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype = ir.DataType.FLOAT
    for node in list(graph):
        if keep_rounding and _rounds(node):
            continue
        attribute = node.attributes.get("to")
        if node.op_type == "Cast" and attribute is not None and attribute.as_int() in _HALVES:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        constant = node.attributes.get("value")
        if node.op_type in ("Constant", "ConstantOfShape") and constant and constant.as_tensor().dtype in _HALVES:
            node.attributes["value"] = ir.AttrTensor(
                "value", ir.tensor(constant.as_tensor().numpy().astype(np.float32))
            )
        for value in node.outputs:
            if value.dtype in _HALVES:
                value.dtype = ir.DataType.FLOAT


def widened(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a graph as those of its shadow."""
    return tuple(replace(s, dtype="float32") if s.dtype in ("bfloat16", "float16") else s for s in specs)


def _widen(graph: ir.Graph, value: ir.Value) -> None:
    uses = list(value.uses())
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
    result = cast.outputs[0]
    result.name, result.dtype, result.shape = f"{value.name}.wide", ir.DataType.FLOAT, value.shape
    for node, index in uses:
        node.replace_input_with(index, result)
    graph.insert_before(graph[0], cast)


def _rounds(node: ir.Node) -> bool:
    attribute = node.attributes.get("to")
    if node.op_type != "Cast" or attribute is None or attribute.as_int() not in _HALVES:
        return False
    users = [user for user, _ in node.outputs[0].uses()]
    return bool(users) and all(user.op_type == "Cast" for user in users) and not node.outputs[0].is_graph_output()
