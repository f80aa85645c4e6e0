"""The external data of an ONNX file: which bytes of which files it refers to. Reads protobuf by hand, without onnx.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.errors import BundleError
from worldrt.engine.protobuf import messages

# where tensors may be: message -> field number -> message
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose values are bytes of `file`, a path below the weight root. `nbytes` None: up to the file's end."""

    name: str
    file: str
    offset: int
    nbytes: int | None


def external_tensors(path: Path) -> tuple[ExternalTensor, ...]:
    """Every tensor of an ONNX file that lies outside of it, also those of nodes and subgraphs, in the file's order.

    Raises `BundleError` where the file cannot be read or is damaged.
    """
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return tuple(_walk(data, "model"))
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, IndexError, RecursionError) as error:
        raise BundleError(f"{path}: not an ONNX file, or damaged ({error}); export the bundle again") from None


def _walk(data: memoryview, kind: str) -> Iterator[ExternalTensor]:
    if kind == "tensor":
        yield from _tensor(data)
        return
    inside = _FIELDS[kind]
    for number, value in messages(data):
        if number in inside:
            yield from _walk(value, inside[number])


def _tensor(data: memoryview) -> Iterator[ExternalTensor]:
    name = ""
    facts: dict[str, str] = {}
    for number, value in messages(data):
        if number == _TENSOR_NAME:
            name = bytes(value).decode()
        elif number == _TENSOR_EXTERNAL:
            pair = {n: bytes(text).decode() for n, text in messages(value)}
            if facts.setdefault(pair.get(1, ""), pair.get(2, "")) != pair.get(2, ""):
                raise ValueError(f"'{name}' has two places")
    if facts:
        offset, length = _number(facts.get("offset")), _number(facts.get("length"))
        yield ExternalTensor(name, facts.get("location", ""), offset, length or None)  # 0 means the same to parsers


def _number(text: str | None) -> int:
    """A whole number below 2^63; 0 where there is none."""
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"a place in a file is a whole number, got '{text[:40]}'")
    return int(text or 0)
