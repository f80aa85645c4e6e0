"""What a graph shows to the outside: names, weights as inputs, and axes that every reader understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import onnx_ir as ir

from worldrt.engine.tensors import SymbolicShape, TensorSpec
from worldrt.export.graphs import GraphSource


def name_tensors(model: ir.Model, source: GraphSource) -> None:
    """Give inputs and outputs the names of the specs. Inner values that happen to have such a name get another."""
    graph = model.graph
    outer = [*graph.inputs, *graph.outputs]
    taken = {spec.name for spec in (*source.inputs, *source.outputs)}
    for node in graph:
        for value in node.outputs:
            if value.name in taken:
                value.name = f"inner_{value.name}"
    expected = len(source.inputs) + len(source.outputs)
    if len(outer) != expected:
        raise ValueError(f"graph '{source.name}': {expected} inputs and outputs declared, {len(outer)} traced")
    common = {id(value) for value in graph.inputs} & {id(value) for value in graph.outputs}
    if common or len({id(value) for value in graph.outputs}) < len(graph.outputs):
        _separate_outputs(graph)
    for value, spec in zip([*graph.inputs, *graph.outputs], (*source.inputs, *source.outputs), strict=True):
        value.name = spec.name


def _separate_outputs(graph: ir.Graph) -> None:
    """An output that is an input, or given twice, becomes a value of its own."""
    seen = {id(value) for value in graph.inputs}
    for index, value in enumerate(graph.outputs):
        if id(value) in seen:
            node = ir.node("Identity", [value])
            copy = node.outputs[0]
            copy.dtype = cast(ir.DataType, value.dtype)
            copy.shape = value.shape
            graph.append(node)
            graph.outputs[index] = copy
        seen.add(id(graph.outputs[index]))


def weights_to_inputs(model: ir.Model, weights: Mapping[str, str]) -> None:
    """Turn the initializers that are weights into graph inputs, behind the others. Unused ones are dropped."""
    graph = model.graph
    for name in weights:
        value = graph.initializers.pop(name, None)
        if value is not None and value.uses():
            value.const_value = None
            graph.inputs.append(value)
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if value.uses() and getattr(getattr(tensor, "raw", None), "is_meta", False):
            raise ValueError(f"graph '{graph.name}': '{name}' is on the meta device and no weight of the source")


def set_shapes(model: ir.Model, source: GraphSource) -> None:
    """Write the declared shapes; axes without a plain name are left open, everywhere.

    Some readers (TensorRT) take any text for the name of an axis of its own, so `2*rows` must not be written.
    """
    for spec in (*source.inputs, *source.outputs):
        value = _find(model.graph, spec)
        value.shape = ir.Shape([_plain(entry) for entry in spec.shape])
    known = {entry for spec in source.inputs for entry in spec.shape if isinstance(entry, str)}
    outer = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for value in node.outputs:
            if id(value) not in outer and value.shape is not None:
                value.shape = ir.Shape([_known(dim, known) for dim in value.shape])


def _find(graph: ir.Graph, spec: TensorSpec) -> ir.Value:
    for value in (*graph.inputs, *graph.outputs):
        if value.name == spec.name:
            if value.dtype != ir.DataType[ONNX_TYPES[spec.dtype]]:
                raise ValueError(f"graph '{graph.name}': declared {spec.describe()}, traced {value.dtype}")
            return value
    raise ValueError(f"graph '{graph.name}': no tensor '{spec.name}'")


def _plain(entry: int | str) -> int | str | None:
    return entry if isinstance(entry, int) or entry.isidentifier() else None


def _known(dim: int | ir.SymbolicDim, known: set[str]) -> int | str | None:
    return dim if isinstance(dim, int) else (dim.value if dim.value in known else None)


def plain_shape(shape: SymbolicShape) -> tuple[int | str | None, ...]:
    """The shape as it is written into a file."""
    return tuple(_plain(entry) for entry in shape)


ONNX_TYPES = {
    "float64": "DOUBLE",
    "float32": "FLOAT",
    "float16": "FLOAT16",
    "bfloat16": "BFLOAT16",
    "int64": "INT64",
    "int32": "INT32",
    "int8": "INT8",
    "uint8": "UINT8",
    "bool": "BOOL",
}
