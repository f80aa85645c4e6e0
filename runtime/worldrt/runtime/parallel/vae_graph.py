"""An ONNX graph as a list of nodes in their order, cut into parts that run one after another.

Reads and writes protobuf by hand, without the onnx package. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine import protobuf
from worldrt.engine.errors import BundleError, UnsupportedError
from worldrt.engine.tensors import ONNX_TYPES, TensorSpec

_GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE = 7, 1, 5, 11, 12, 13
_NAME, _TYPE = 1, 2
_DTYPES = {number: name for name, number in ONNX_TYPES.items()}


@dataclass(frozen=True)
class Node:
    """A node as it is in the file, and what of it matters for cutting."""

    raw: bytes
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """Nodes in an order in which they can run. `model` are the fields of the file besides the graph. `values`: dtype,
    and the sizes that are known, of tensors; `constants`: shapes of initializers."""

    model: bytes
    name: bytes
    nodes: tuple[Node, ...]
    initializers: Mapping[str, bytes]
    constants: Mapping[str, tuple[int, ...]]
    values: Mapping[str, tuple[str, tuple[int, ...]]] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> OnnxGraph:
        """Raises `BundleError` for a damaged file, `UnsupportedError` for a graph with others in its nodes."""
        try:
            return _read(memoryview(path.read_bytes()))
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, IndexError, StopIteration) as error:
            raise BundleError(f"{path}: not an ONNX file, or damaged ({error}); export the bundle again") from None

    def dtype(self, tensor: str) -> str:
        """`float32` where the file does not say."""
        return self.values.get(tensor, ("float32", ()))[0]

    def part(
        self,
        nodes: Iterable[Node],
        inputs: Sequence[TensorSpec],
        outputs: Mapping[str, str | None],
        sizes: Mapping[str, np.ndarray[Any, Any]],
    ) -> bytes:
        """An ONNX file of some nodes. `inputs` have shapes in numbers; `outputs` are dtypes by name, None where
        that is to be inferred; `sizes` become
        constants."""
        nodes = list(nodes)
        used = {tensor for node in nodes for tensor in node.inputs}
        fields = [protobuf.field(_NODE, node.raw) for node in nodes]
        fields.append(protobuf.field(2, self.name))
        fields += [protobuf.field(_INITIALIZER, raw) for name, raw in self.initializers.items() if name in used]
        fields += [protobuf.field(_INITIALIZER, _constant(n, array)) for n, array in sizes.items() if n in used]
        fields += [protobuf.field(_INPUT, _described(spec.name, spec.dtype, spec.shape)) for spec in inputs]
        fields += [protobuf.field(_OUTPUT, _described(name, dtype, None)) for name, dtype in outputs.items()]
        return self.model + protobuf.field(_GRAPH, b"".join(fields))

    def of_sizes(self, inputs: Iterable[str]) -> list[Node]:
        """The nodes that follow from the shapes of the graph's inputs."""
        given, found = set(inputs), []
        fixed = {"", *self.initializers, *(out for node in self.nodes if node.op == "Constant" for out in node.outputs)}
        sized: set[str] = set()
        for node in self.nodes:
            follows = any(tensor in sized for tensor in node.inputs) and sized.union(fixed).issuperset(node.inputs)
            if follows or (node.op == "Shape" and node.inputs[0] in given):
                sized.update(node.outputs)
                found.append(node)
        return found


def _read(data: memoryview) -> OnnxGraph:
    rest, graph = [], memoryview(b"")
    for number, content in protobuf.fields(data):
        if number == _GRAPH and not isinstance(content, int):
            graph = content
        else:
            whole = isinstance(content, int)
            rest.append(protobuf.number(number, content) if whole else protobuf.field(number, content))  # type: ignore[arg-type]
    nodes, initializers, constants, values, name = [], {}, {}, {}, b"graph"
    for number, content in protobuf.messages(graph):
        if number == _NODE:
            nodes.append(_node(content))
        elif number == _INITIALIZER:
            tensor, shape = _tensor(content)
            initializers[tensor], constants[tensor] = bytes(content), shape
        elif number in (_INPUT, _OUTPUT, _VALUE):
            tensor, kind = _value(content)
            values[tensor] = kind
        elif number == 2:
            name = bytes(content)
    return OnnxGraph(b"".join(rest), name, tuple(nodes), initializers, constants, values)


def _node(data: memoryview) -> Node:
    inputs, outputs, op = [], [], ""
    for number, content in protobuf.messages(data):
        if number == 1:
            inputs.append(bytes(content).decode())
        elif number == 2:
            outputs.append(bytes(content).decode())
        elif number == 4:
            op = bytes(content).decode()
        elif number == 5 and any(inner in (6, 11) for inner, _ in protobuf.messages(content)):
            raise UnsupportedError("a graph with graphs in its nodes cannot be cut")
    return Node(bytes(data), op, tuple(inputs), tuple(outputs))


def _tensor(data: memoryview) -> tuple[str, tuple[int, ...]]:
    name, shape = "", []
    for number, content in protobuf.fields(data):
        if number == 1:
            shape += [content] if isinstance(content, int) else protobuf.varints(content)
        elif number == 8 and not isinstance(content, int):
            name = bytes(content).decode()
    return name, tuple(shape)


def _value(data: memoryview) -> tuple[str, tuple[str, tuple[int, ...]]]:
    """Name, dtype and known sizes of a `ValueInfoProto` of a tensor."""
    parts = dict(protobuf.messages(data))
    tensor = dict(protobuf.messages(parts[_TYPE])).get(1, memoryview(b"")) if _TYPE in parts else memoryview(b"")
    facts = dict(protobuf.fields(tensor))
    sizes = []
    shape = facts.get(2, b"")
    for number, dim in protobuf.messages(memoryview(b"") if isinstance(shape, int) else memoryview(shape)):
        if number == 1:
            sizes += [value for inner, value in protobuf.fields(dim) if inner == 1 and isinstance(value, int)]
    kind = facts.get(1, 1)
    return bytes(parts[_NAME]).decode(), (_DTYPES.get(kind if isinstance(kind, int) else 1, "other"), tuple(sizes))


def _described(name: str, dtype: str | None, shape: Sequence[int | str] | None) -> bytes:
    """A `ValueInfoProto`; without what is to be inferred."""
    if dtype is None:
        return protobuf.field(_NAME, name.encode())
    tensor = protobuf.number(1, ONNX_TYPES[dtype])
    if shape is not None:
        dims = b"".join(protobuf.field(1, protobuf.number(1, int(size))) for size in shape)
        tensor += protobuf.field(2, dims)
    return protobuf.field(_NAME, name.encode()) + protobuf.field(_TYPE, protobuf.field(1, tensor))


def _constant(name: str, array: np.ndarray[Any, Any]) -> bytes:
    """A `TensorProto`."""
    dims = b"".join(protobuf.number(1, size) for size in array.shape)
    kind = protobuf.number(2, ONNX_TYPES[str(array.dtype)])
    return dims + kind + protobuf.field(8, name.encode()) + protobuf.field(9, np.ascontiguousarray(array).tobytes())


def weight_of(graph: OnnxGraph, node: Node) -> int:
    """Multiplications of a convolution or a matrix product for each place of what it gives, times its known sizes."""
    shapes = [graph.constants[tensor] for tensor in node.inputs[1:2] if tensor in graph.constants]
    if node.op not in ("Conv", "MatMul", "Gemm") or not shapes or not shapes[0]:
        return 0
    known = graph.values.get(node.outputs[0], ("", ()))[1]
    times = max(1, prod(known) // max(1, shapes[0][0]))
    return prod(shapes[0]) * times
