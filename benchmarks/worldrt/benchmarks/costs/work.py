"""What a graph has to do, as numbers that hold on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Work:
    """FLOPs, where a multiplication and an addition are two, and bytes.

    `linear`: products of activations with weights. `attention`: products of activations with activations. What is done
    value by value is not counted: its time goes by bytes. `weight_bytes`: weights as they are stored. `edge_bytes`:
    all inputs and outputs of the graph but its weights.
    """

    linear: float = 0.0
    attention: float = 0.0
    convolution: float = 0.0
    weight_bytes: float = 0.0
    edge_bytes: float = 0.0

    @property
    def flops(self) -> float:
        return self.linear + self.attention + self.convolution

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: float) -> Work:
        """The same so many times; weights are there once."""
        scaled = {f.name: getattr(self, f.name) * times for f in fields(self)}
        return Work(**scaled | {"weight_bytes": self.weight_bytes})


def total(parts: Iterable[Work]) -> Work:
    """All of them, each with weights of its own."""
    return sum(parts, Work())


def linear(rows: float, width_in: int, width_out: int) -> float:
    """FLOPs of a linear layer over `rows` vectors."""
    return 2.0 * rows * width_in * width_out


def attention(batch: int, queries: float, keys: float, width: int) -> float:
    """FLOPs of scores and of the weighted sum; `width` is that of all heads."""
    return 4.0 * batch * queries * keys * width
