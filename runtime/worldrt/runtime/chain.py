"""What the graphs of a denoiser say of it: what it is given, and what passes from block to block."""

from __future__ import annotations

from worldrt.engine.bundle import Denoiser, Graph
from worldrt.engine.errors import BundleError
from worldrt.runtime.bound import LEVELS, ROW

NEXT = "next_"
"""An output of a block that is the input of this name, without it, of the next one."""
ATTEND = "attend"
"""The graph of attention alone, where it is cut out of the blocks: it is run before each of them, and the head."""


def conditions_of(spec: Denoiser) -> set[str]:
    """Names of a denoiser's inputs beside x, levels and text."""
    return {tensor.name for tensor in entry_of(spec).inputs} - {"x", "text", ROW, *LEVELS}


def heads_of(spec: Denoiser) -> int:
    """How many heads attention has that is cut out of blocks."""
    heads = next(tensor.shape[2] for tensor in entry_of(spec).outputs if tensor.name == "q")
    assert isinstance(heads, int)
    return heads


def carried_of(spec: Denoiser) -> tuple[str, ...]:
    """What blocks of the block form take and give anew, by the names of their inputs: hidden states, and queries, keys
    and values, of every stream that the model has. Raises `BundleError` for what a block gives and nothing takes, and
    for blocks that do not agree where they are one as the other."""
    taken = {tensor.name for graph in spec.graphs.values() for tensor in graph.inputs}
    carried: dict[str, None] = {}
    for name in spec.block_graphs():
        graph = spec.graphs[name]
        made = {output.name: output.name.removeprefix(NEXT) for output in graph.outputs}
        anew = {plain: None for name, plain in made.items() if name != plain}
        alike = bool(spec.chain) or not carried or carried == anew
        if not alike or not set(made.values()) <= taken:
            raise BundleError(f"{graph.file}: expected outputs that the next block takes, got {', '.join(made)}")
        carried |= anew
    return tuple(carried)


def entry_of(spec: Denoiser) -> Graph:
    """The first graph. Raises `BundleError` where it is missing."""
    name = "denoise" if spec.form == "whole" else "embed"
    if name not in spec.graphs:
        raise BundleError(f"a denoiser of this bundle has no graph '{name}'; export the bundle again")
    return spec.graphs[name]
