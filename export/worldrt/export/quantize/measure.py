"""Numbers of values inside a graph, computed by the graph itself, so that no tensor has to be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import Bundle, Graph
from worldrt.engine.device import Buffer, HostDevice, host_buffer
from worldrt.engine.errors import InputError
from worldrt.engine.session import Call, Session, open_session
from worldrt.engine.tensors import TensorSpec
from worldrt.export.link import move_nodes
from worldrt.export.quantize.runs import Recorded
from worldrt.export.quantize.static import constant

LARGEST = 100.0
"""The percentile that is the largest value."""


@dataclass(frozen=True)
class Probe:
    """A loaded graph that gives these scalars besides its own outputs."""

    session: Session
    names: tuple[str, ...]

    def __call__(self, call: Recorded) -> dict[str, float]:
        return self.scalars(self.run(buffers(call)))

    def run(
        self,
        inputs: Mapping[str, Buffer],
        weights: Mapping[str, Buffer] | None = None,
        axes: Mapping[str, int] | None = None,
    ) -> Call:
        """Run the graph on those of `inputs` that it takes; `axes` as of `Session.bind`.

        Raises `InputError` where one is not there.
        """
        taken = {spec.name for spec in self.session.graph.inputs}
        missing = sorted(taken - set(inputs))
        if missing:  # it would be taken as zeros
            raise InputError(f"recorded inputs: expected '{missing[0]}' among them, got {', '.join(inputs)}")
        given = {name: buffer for name, buffer in inputs.items() if name in taken}
        bound = self.session.bind(axes or {}, given | dict(weights or {}))
        bound.run()
        return bound

    def scalars(self, call: Call) -> dict[str, float]:
        return {name: float(call[name].numpy()) for name in self.names}


def buffers(call: Recorded) -> dict[str, Buffer]:
    """The inputs of a recorded call."""
    return {name: host_buffer(np.ascontiguousarray(array)) for name, array in call.inputs.items()}


def probe(bundle: Bundle, graph: Graph, path: Path, model: ir.Model, scalars: Mapping[str, ir.Value]) -> Probe:
    """Write `model` to `path` with some float32 scalars of it as outputs too, by their keys, and load it on the CPU."""
    for name, value in scalars.items():
        value.name, value.shape, value.type = name, ir.Shape(()), ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    ir.save(model, path)
    more = tuple(TensorSpec(name, "float32", ()) for name in scalars)
    seen = replace(graph, outputs=(*graph.outputs, *more))
    session = open_session("onnxruntime", path, seen, HostDevice(), weight_root=bundle.weight_root)
    return Probe(session, tuple(scalars))


def magnitude(graph: ir.Graph, value: ir.Value, percentile: float = LARGEST) -> ir.Value:
    """The largest magnitude of a value, or that which `percentile` percent of its numbers do not exceed."""
    size = _append(graph, "Abs", value)
    if percentile == LARGEST:
        return _append(graph, "ReduceMax", size, keepdims=0)
    above = constant(graph, f"{value.name}.above", np.float32(1 - percentile / 100))
    count = _append(graph, "Cast", _append(graph, "Size", size), to=ir.DataType.FLOAT)
    beyond = _append(graph, "Cast", _append(graph, "Floor", _append(graph, "Mul", count, above)), to=ir.DataType.INT64)
    one = constant(graph, f"{value.name}.one", np.array([1], np.int64))
    all_in_line = constant(graph, f"{value.name}.line", np.array([-1], np.int64))
    top = _append(graph, "TopK", _append(graph, "Reshape", size, all_in_line), _append(graph, "Add", beyond, one))
    return _append(graph, "ReduceMin", top, keepdims=0)


def squares(graph: ir.Graph, actual: ir.Value, exact: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The sums of squares of the difference of two values, and of the second one."""
    difference = _append(graph, "Sub", actual, exact)
    return tuple(_append(graph, "ReduceSumSquare", value, keepdims=0) for value in (difference, exact))  # type: ignore[return-value]


def _append(graph: ir.Graph, kind: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
    node = ir.node(kind, inputs, attributes, num_outputs=2 if kind == "TopK" else 1)
    for value in node.outputs:
        value.name = f"probe.{kind}.{len(graph)}.{value.index()}"
    graph.append(node)
    return node.outputs[0]


def beside(graph: ir.Graph, other: ir.Graph) -> None:
    """Move the nodes of `other` into `graph`, where they take its inputs and its weights.

    Both have inputs of the same names. Initializers of one name that lie in another file are the same.
    """
    inputs = {value.name: value for value in graph.inputs}
    for value in list(other.inputs):
        value.replace_all_uses_with(inputs[value.name])
    for name, value in list(other.initializers.items()):
        other.initializers.pop(name)
        shared = graph.initializers.get(name)
        if shared is not None and isinstance(value.const_value, ir.ExternalTensor):
            value.replace_all_uses_with(shared)
        else:
            value.name = f"other.{name}"
            graph.register_initializer(value)
    other.outputs.clear()
    move_nodes(graph, other, "other.")
