"""What a family hands to the tracer: a module, the tensors in and out of it, and where its weights lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from worldrt.engine.tensors import TensorSpec


@dataclass(frozen=True)
class GraphSource:
    """One graph to be.

    `module.forward` takes the inputs by position, in this order, and returns a tensor or a tuple in the order of
    `outputs`. `weights` maps every parameter of `module` (dotted name) to the key of its checkpoint tensor. In a graph
    that is traced once for many blocks a key holds `{i}`, and `{j}` for the block after it (see
    `worldrt.engine.weights.numbered`). With `fold`, what follows from constants and weights is computed at export.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: Mapping[str, str]
    fold: bool = False


def is_cut(source: GraphSource) -> bool:
    """Whether a graph of the block form has attention cut out of it: its queries have their frames first."""
    specs = (*source.inputs, *source.outputs)
    return any(spec.name == "attended" or (spec.name == "q" and spec.shape[0] == "frames") for spec in specs)


def renamed(module: nn.Module, prefixes: Mapping[str, str]) -> dict[str, str]:
    """Parameter of a graph -> checkpoint key; the first prefix that fits is replaced."""

    def key(name: str) -> str:
        prefix = next(p for p in prefixes if name.startswith(p))
        return prefixes[prefix] + name.removeprefix(prefix)

    return {name: key(name) for name, _ in module.named_parameters()}
