"""Weight inputs of a graph as constants of it, without the onnx package.

Protobuf messages merge by concatenation: bytes of a `ModelProto` that holds nothing but `graph.initializer` may follow
those of an ONNX file, and an input of a name that also has an initializer is a constant. The values stay where they
are: an initializer with external data names bytes of a file below the weight root.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from worldrt.engine.bundle import Graph
from worldrt.engine.errors import BundleError
from worldrt.engine.plans import Constant
from worldrt.engine.protobuf import field, number
from worldrt.engine.tensors import ONNX_TYPES
from worldrt.engine.weights import WeightStore, weight_key

_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_KEY, _VALUE = 1, 2
_EXTERNAL = 1


def constants_of(graph: Graph, store: WeightStore, block: int = 0) -> tuple[Constant, ...]:
    """The weight inputs of instance `block` of a graph, by their places in the checkpoint, or in the bundle where they
    are its own; none where the graph refers to its weights itself. Raises `CheckpointError` where the store lacks one,
    `UnsupportedError` where it is not the checkpoint's own."""
    if graph.weights_as == "external":
        return ()
    found = []
    for weight in graph.weights:
        file, tensor = store.place(weight_key(weight, block))
        own = file is store.own
        place = file.path.name if own else file.path.relative_to(store.root).as_posix()
        folder = file.path.parent.absolute() if own else None
        found.append(Constant(weight.name, tensor.dtype, tensor.shape, place, tensor.offset, tensor.nbytes, folder))
    return tuple(found)


def with_constants(onnx: bytes, constants: Iterable[Constant]) -> bytes:
    """An ONNX file in which some of the inputs are constants. Raises `BundleError` where one with a folder of its own
    cannot be read."""
    initializers = b"".join(field(_GRAPH_INITIALIZER, _tensor(constant)) for constant in constants)
    return onnx + field(_MODEL_GRAPH, initializers) if initializers else onnx


def _tensor(constant: Constant) -> bytes:
    """A `TensorProto` that refers to its values, or holds them where they lie in a folder of their own."""
    described = [
        *(number(_DIMS, size) for size in constant.shape),
        number(_DATA_TYPE, ONNX_TYPES[constant.dtype]),
        field(_NAME, constant.name.encode()),
    ]
    if constant.folder is not None:
        return b"".join([*described, field(_RAW_DATA, _values(constant.folder / constant.file, constant))])
    place = {"location": constant.file, "offset": str(constant.offset), "length": str(constant.nbytes)}
    entries = (field(_KEY, key.encode()) + field(_VALUE, _utf8(value)) for key, value in place.items())
    referred = [*(field(_EXTERNAL_DATA, entry) for entry in entries), number(_DATA_LOCATION, _EXTERNAL)]
    return b"".join([*described, *referred])


def _values(path: Path, constant: Constant) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(constant.offset)
            values = file.read(constant.nbytes)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    if len(values) != constant.nbytes:
        raise BundleError(f"{path}: cut short: no {constant.nbytes} bytes at {constant.offset}; copy the bundle whole")
    return values


def _utf8(text: str) -> bytes:
    """Names of files need not be text; the parser opens the bytes that it is given."""
    return text.encode("utf-8", "surrogateescape")
