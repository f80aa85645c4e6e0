"""E2M1 written out in float32, for ONNX Runtime, which has no kernels of it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from worldrt.export.quantize.scheme import NVFP4
from worldrt.export.quantize.static import constant


def expand_fp4(graph: ir.Graph) -> int:
    """Replace QuantizeLinear to E2M1 and the DequantizeLinear behind it by what they stand for; how many pairs.

    The numbers of E2M1 are 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; a half rounds to an even mantissa.
    """
    found = [n for n in graph if n.op_type == "QuantizeLinear" and n.outputs[0].dtype == NVFP4.dtype]
    for node in found:
        back = next(use.node for use in node.outputs[0].uses())
        _expand(graph, node, back)
    return len(found)


def _expand(graph: ir.Graph, quantize: ir.Node, back: ir.Node) -> None:
    value, scale = quantize.inputs[0], back.inputs[1]
    assert value is not None and scale is not None and value.shape is not None and NVFP4.block is not None
    rows, columns = (int(size) for size in value.shape)  # type: ignore[arg-type]
    name, made = f"{quantize.name}.written", [quantize]

    def number(key: str, *values: float | int, dtype: type = np.float32) -> ir.Value:
        return constant(graph, f"{name}.{key}", np.array(values if len(values) > 1 else values[0], dtype))

    def put(kind: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(kind, inputs, attributes, name=f"{name}.{len(made)}")
        node.outputs[0].name, node.outputs[0].type = f"{name}.{len(made)}.out", ir.TensorType(ir.DataType.FLOAT)
        made.append(node)
        return node.outputs[0]

    blocks = put("Reshape", value, number("blocks", rows, columns // NVFP4.block, NVFP4.block, dtype=np.int64))
    last = constant(graph, f"{name}.last", np.array([-1], np.int64))
    scales = put("Unsqueeze", scale, last)
    low, high = number("low", -NVFP4.largest), number("high", NVFP4.largest)
    unit = put("Clip", put("Div", blocks, scales), low, high)
    size = put("Abs", unit)
    half, one, two, four = (number(key, x) for key, x in (("half", 0.5), ("one", 1.0), ("two", 2.0), ("four", 4.0)))
    step = put("Where", put("Less", size, two), half, put("Where", put("Less", size, four), one, two))
    rounded = put("Mul", put("Round", put("Div", unit, step)), step)
    whole = put("Reshape", put("Mul", rounded, scales), number("shape", rows, columns, dtype=np.int64))
    for node in made:
        if node.op_type == "Less":
            node.outputs[0].type = ir.TensorType(ir.DataType.BOOL)
    graph.insert_before(back, made[1:])
    back.outputs[0].replace_all_uses_with(whole)
    graph.remove([back, quantize], safe=True)
