"""A deep network as one graph, from segments that are traced once and repeated: time that does not grow with depth."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from worldrt.engine.tensors import TensorSpec
from worldrt.engine.weights import numbered
from worldrt.export import trace
from worldrt.export.graphs import GraphSource
from worldrt.export.passes import interface, light


@dataclass(frozen=True)
class Segment:
    """Part of a whole network, `repeat` times in a row. Segments of equal `key` have equal graphs.

    It takes its inputs by name from the inputs of the whole and from what segments before it gave; an output replaces
    what had its name. The `weights` of its source are names of the whole's parameters; `{i}` in them counts repeats,
    from `first` on (`worldrt.engine.weights.numbered`).
    """

    source: GraphSource
    key: Hashable
    repeat: int = 1
    first: int = 0


Traced = dict[Hashable, ir.Graph]
"""Segments by key, so that several graphs may share them."""


def link(whole: GraphSource, segments: Sequence[Segment], traced: Traced) -> ir.Model:
    """The graph of `whole`, as `trace.to_onnx` would give it from its module. What is traced is added to `traced`."""
    inputs = [_value(spec) for spec in whole.inputs]
    known = {value.name or "": value for value in inputs}
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": trace.OPSET}, name=whole.name)
    for segment in segments:
        if segment.key not in traced:
            traced[segment.key] = read_segment(traced_segment(segment))
        for i in range(segment.first, segment.first + segment.repeat):
            known |= _append(graph, traced[segment.key].clone(), segment.source, i, known)
    for spec in whole.outputs:
        value = known[spec.name.removeprefix(trace.NEXT)]
        value.name = spec.name
        graph.outputs.append(value)
    model = ir.Model(graph, ir_version=10)
    light(model)
    interface.set_shapes(model, whole)
    return model


def traced_segment(segment: Segment) -> bytes:
    """A segment by itself, as the ONNX file that a process can hand to another."""
    source = trace.distinct(segment.source)
    made: bytes = ir.to_proto(trace.to_onnx(trace.trace(source), source)).SerializeToString()
    return made


def read_segment(model: bytes) -> ir.Graph:
    """The graph of a traced segment."""
    return ir.from_proto(onnx.load_from_string(model)).graph


def _append(
    graph: ir.Graph, part: ir.Graph, source: GraphSource, index: int, known: dict[str, ir.Value]
) -> dict[str, ir.Value]:
    """Move a copy of a traced segment into the graph; its outputs by name."""
    prefix = f"{source.name}.{index}."
    for value in list(part.inputs):
        part.inputs.remove(value)
        name = value.name or ""
        if name in source.weights:
            value.name = numbered(source.weights[name], index)
            graph.inputs.append(value)
        else:
            ir.convenience.replace_all_uses_with(value, known[name])
    for initializer in list(part.initializers.values()):
        part.initializers.pop(initializer.name or "")
        initializer.name = f"{prefix}{initializer.name}"
        graph.register_initializer(initializer)
    results = list(part.outputs)
    part.outputs.clear()
    move_nodes(graph, part, prefix)
    return {spec.name: value for spec, value in zip(source.outputs, results, strict=True)}


def move_nodes(graph: ir.Graph, other: ir.Graph, prefix: str) -> None:
    """Move all nodes of `other`, which has no outputs any more, to the end of `graph`; their names get a prefix."""
    nodes = list(other)
    other.remove(nodes)
    for node in nodes:
        node.name = f"{prefix}{node.name}"
        for value in node.outputs:
            value.name = f"{prefix}{value.name}"
    graph.extend(nodes)


def _value(spec: TensorSpec) -> ir.Value:
    dtype = ir.DataType[interface.ONNX_TYPES[spec.dtype]]
    return ir.Value(name=spec.name, type=ir.TensorType(dtype), shape=ir.Shape(interface.plain_shape(spec.shape)))
