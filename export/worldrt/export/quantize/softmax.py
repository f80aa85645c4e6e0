"""Attention over FP8 as an engine computes it: with its softmax in FP8 too (`worldrt.engine.fp8_attention`)."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from worldrt.engine.fp8_attention import SOFTMAX_SCALE
from worldrt.export.quantize.scheme import FP8
from worldrt.export.quantize.static import constant


def expand_fp8_attention(graph: ir.Graph) -> int:
    """Write each Attention whose values come from FP8 as products and a quantised softmax, in float32; how many.

    q, k, v are (batch, heads, length, size) without a mask. All scores are in memory at once.
    """
    found = [node for node in graph if node.op_type == "Attention" and _from_fp8(node)]
    for node in found:
        _expand(graph, node)
    return len(found)


def _from_fp8(node: ir.Node) -> bool:
    value = node.inputs[2]
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return False
    return producer.inputs[0].dtype == FP8.dtype


def _expand(graph: ir.Graph, node: ir.Node) -> None:
    q, k, v = node.inputs[:3]
    assert q is not None and q.shape is not None
    given = node.attributes.get("scale")
    scale = 1 / math.sqrt(int(q.shape[-1])) if given is None else given.as_float()  # type: ignore[arg-type]
    name = f"{node.name}.softmax"
    factor = constant(graph, f"{name}.factor", np.array(scale, np.float32))
    step = constant(graph, f"{name}.scale", np.array(SOFTMAX_SCALE, np.float32))
    turned = ir.node("Transpose", [k], {"perm": [0, 1, 3, 2]})
    scores = ir.node("MatMul", [q, turned.outputs[0]])
    scaled = ir.node("Mul", [scores.outputs[0], factor])
    softmax = ir.node("Softmax", [scaled.outputs[0]], {"axis": -1})
    quantize = ir.node("QuantizeLinear", [softmax.outputs[0], step], {"output_dtype": FP8.dtype.value})
    back = ir.node("DequantizeLinear", [quantize.outputs[0], step])
    result = ir.node("MatMul", [back.outputs[0], v])
    made = [turned, scores, scaled, softmax, quantize, back, result]
    for index, part in enumerate(made):
        part.name = f"{name}.{index}"
        part.outputs[0].name = f"{name}.{index}.out"
        part.outputs[0].type = ir.TensorType(FP8.dtype if part is quantize else ir.DataType.FLOAT)
    graph.insert_before(node, made)
    old, new = node.outputs[0], result.outputs[0]
    new.shape = old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name_of_old, old.name = old.name, f"{old.name}.whole"
    new.name = name_of_old
    graph.remove(node, safe=True)
