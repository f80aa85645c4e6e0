"""QuantizeLinear and DequantizeLinear around linear layers and attention, for libraries that fuse them.

Weights stay where they are: a graph quantises its reference into the checkpoint, and what builds an engine folds that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import Weight
from worldrt.export.quantize.find import BLOCK, Linear, attentions, linears
from worldrt.export.quantize.scheme import NVFP4, Array, Scheme, double_scales, scales

KEPT = re.compile(r"(^|\.)(stem|final|\w*modulation)\.")
"""Layers outside of the blocks and modulation: few rows, so little time, but all of the signal goes through them."""


Put = Callable[[ir.Graph, str, Array], ir.Value]
"""Gives a graph some scales under a name, such as `constant` does."""


def chosen(graph: ir.Graph, weights: Sequence[Weight], keep: re.Pattern[str] | None = None) -> list[Linear]:
    """The layers to quantise: not those of the first and the last block, `KEPT`, or whose weights `keep` finds."""
    numbers = {int(found.group(1)) for weight in weights if (found := BLOCK.search(weight.name))}
    ends = {min(numbers), max(numbers)} if numbers else set()
    kept = [KEPT] if keep is None else [KEPT, keep]
    names = [weight.name for weight in weights if not any(pattern.search(weight.name) for pattern in kept)]
    return [linear for linear in linears(graph, names) if linear.block not in ends]


def ranged(found: Sequence[Linear], scheme: Scheme) -> list[ir.Value]:
    """The activations that need a scale, each once: inputs of the layers; q, k and v."""
    if not scheme.activations:
        return []
    values = [linear.matmul.inputs[0] for linear in found]
    if scheme.attention:
        values += [value for node in attentions(found) for value in node.inputs[:3]]
    return list({id(value): value for value in values if value is not None}.values())


def insert(
    graph: ir.Graph,
    found: Sequence[Linear],
    scheme: Scheme,
    amax: Mapping[str, float | Array],
    weight_amax: Callable[[str, int | None], Array],
    put: Put | None = None,
) -> None:
    """Quantise layers in place. `amax`: the largest magnitude of each activation of `ranged`, by its name;
    `weight_amax` gives those of the output channels (out,) of a weight, by its name, or of its blocks of so many
    inputs, (out, in / block). `put` takes the scales, and then magnitudes may have axes before these."""
    put = put or constant
    attended = list(attentions(found)) if scheme.attention else []
    activations = ranged(found, scheme)
    for linear in found:
        _insert_weight(graph, linear, scheme, weight_amax(linear.name, scheme.block), put)
    takers = {id(linear.matmul) for linear in found} | {id(node) for node in attended}
    for value in activations:
        _insert_activation(graph, value, scheme, amax[value.name or ""], takers, put)


def _insert_weight(graph: ir.Graph, linear: Linear, scheme: Scheme, amax: Array, put: Put) -> None:
    """weight -> Quantize -> Dequantize into the compute dtype -> Transpose. A Cast of the weight has nothing to do."""
    weight, computed = linear.weight, linear.matmul.outputs[0].dtype
    assert computed is not None
    start = linear.between[0]
    if scheme is NVFP4:
        pair = _double(graph, linear.name, amax, computed, start)
    else:
        pair = _single(graph, linear.name, scheme, amax, computed, put)
    result = _pair(graph, weight, pair, scheme, start, axis=0 if scheme.block is None else 1)
    if start.op_type == "Cast":
        start.outputs[0].replace_all_uses_with(result)
        graph.remove(start, safe=True)
    else:
        start.replace_input_with(0, result)


def _single(
    graph: ir.Graph, name: str, scheme: Scheme, amax: Array, computed: ir.DataType, put: Put
) -> tuple[ir.Value, ir.Value]:
    """Scales to quantise by, in float32, and the same in the compute dtype."""
    scale = scales(amax, scheme, computed)
    exact = put(graph, f"{name}.scale", scale.astype(np.float32))
    coarse = exact if computed == ir.DataType.FLOAT else put(graph, f"{name}.scale.{computed.name}", scale)
    return exact, coarse


def _double(
    graph: ir.Graph, name: str, amax: Array, computed: ir.DataType, before: ir.Node
) -> tuple[ir.Value, ir.Value]:
    """The same for scales that are quantised themselves: the second is the result of a DequantizeLinear."""
    steps, unit = double_scales(amax)
    exact = constant(graph, f"{name}.scale", (steps.astype(np.float64) * unit).astype(np.float32))
    inner = constant(graph, f"{name}.scale.{steps.dtype.name}", steps)
    outer = constant(graph, f"{name}.scale.unit", np.array(unit).astype(computed.numpy()))
    node = ir.node("DequantizeLinear", [inner, outer], name=f"{name}.scale.dequantize")
    node.outputs[0].name, node.outputs[0].shape = f"{name}.scale.back", ir.Shape(steps.shape)
    node.outputs[0].type = ir.TensorType(computed)
    graph.insert_before(before, node)
    return exact, node.outputs[0]


def _insert_activation(
    graph: ir.Graph, value: ir.Value, scheme: Scheme, amax: float | Array, takers: set[int], put: Put
) -> None:
    """One pair for all layers that take a value; others take it as it is."""
    assert value.dtype is not None
    uses = [use for use in value.uses() if id(use.node) in takers]
    scale = put(graph, f"{value.name}.scale", scales(np.asarray(amax), scheme, value.dtype))
    first = min((use.node for use in uses), key=_order(graph))
    result = _pair(graph, value, (scale, scale), scheme, first)
    for node, index in uses:
        node.replace_input_with(index, result)


def _pair(
    graph: ir.Graph,
    value: ir.Value,
    scale: tuple[ir.Value, ir.Value],
    scheme: Scheme,
    before: ir.Node,
    axis: int | None = None,
) -> ir.Value:
    computed = scale[1].dtype
    assert computed is not None
    attributes = {} if axis is None else {"axis": axis}
    if axis is not None and scheme.block is not None:
        attributes["block_size"] = scheme.block
    name = f"{value.name}.{scheme.name}"
    quantize = ir.node(
        "QuantizeLinear", [value, scale[0]], attributes | {"output_dtype": scheme.dtype.value}, name=f"{name}.quantize"
    )
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale[1]], attributes, name=f"{name}.dequantize")
    for node, dtype, suffix in ((quantize, scheme.dtype, ""), (dequantize, computed, ".back")):
        result = node.outputs[0]
        result.name, result.shape, result.type = f"{name}{suffix}", value.shape, ir.TensorType(dtype)
    graph.insert_before(before, [quantize, dequantize])
    return dequantize.outputs[0]


def _order(graph: ir.Graph) -> Callable[[ir.Node], int]:
    places = {id(node): index for index, node in enumerate(graph)}
    return lambda node: places[id(node)]


def constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """An initializer that lies in the .onnx file."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
