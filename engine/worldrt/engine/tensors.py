"""What a tensor of a graph looks like: name, dtype, and a shape of numbers and named axes.

A shape entry is a number, an axis name (`frames`), or a multiple of one (`8*rows`). Dtypes are numpy's names plus
`bfloat16`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from worldrt.engine.errors import ShapeError

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

# TensorProto.DataType of onnx.proto3
ONNX_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "bfloat16": 16,
}

Shape = tuple[int, ...]
SymbolicShape = tuple[int | str, ...]


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output: `TensorSpec("x", "float32", ("batch", 16, "frames", "2*rows", "2*columns"))`."""

    name: str
    dtype: str
    shape: SymbolicShape

    def resolve(self, axes: Mapping[str, int]) -> Shape:
        """The shape in numbers. Raises `ShapeError` where an axis has no size."""
        return tuple(entry if isinstance(entry, int) else self._size(entry, axes) for entry in self.shape)

    def _size(self, entry: str, axes: Mapping[str, int]) -> int:
        factor, name = split_axis(entry)
        if name not in axes:
            raise ShapeError(f"tensor '{self.name}': axis '{name}' has no size; sizes given: {sorted(axes)}")
        return factor * axes[name]

    def describe(self) -> str:
        """`x float32[batch, 16, frames]`"""
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


def split_axis(entry: str) -> tuple[int, str]:
    """`8*rows` -> (8, 'rows'); `rows` -> (1, 'rows')."""
    factor, star, name = entry.partition("*")
    return (int(factor), name) if star else (1, entry)


def axis_names(specs: Iterable[TensorSpec]) -> list[str]:
    """The named axes of some tensors, in the order they are met."""
    entries = (entry for spec in specs for entry in spec.shape if isinstance(entry, str))
    return list(dict.fromkeys(split_axis(entry)[1] for entry in entries))


def solve_axes(specs: Iterable[TensorSpec], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Axis sizes from the shapes of some tensors. Raises `ShapeError` on rank, multiple or agreement."""
    axes: dict[str, int] = {}
    for spec in specs:
        if spec.name not in shapes:
            continue
        actual = shapes[spec.name]
        if len(actual) != len(spec.shape):
            raise ShapeError(f"tensor '{spec.name}': expected {spec.describe()}, got shape {actual}")
        for entry, size in zip(spec.shape, actual, strict=True):
            factor, name = (size, "") if isinstance(entry, int) else split_axis(entry)
            wrong = entry != size if isinstance(entry, int) else size % factor != 0
            if wrong or (name and axes.setdefault(name, size // factor) != size // factor):
                raise ShapeError(f"tensor '{spec.name}': expected {spec.describe()}, got shape {actual}")
    return axes


def size_bytes(shape: Shape, dtype: str) -> int:
    """Bytes of a contiguous tensor."""
    return math.prod(shape) * ITEM_BYTES[dtype]
