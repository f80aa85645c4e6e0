"""Which plans a component needs: one for each graph, and in the block form with constants one for each block.

A transformer has three forms as engines. Whole: one plan with all weights. Blocks with constants: a plan for `embed`,
for `head` and for each block, with its own weights. Shared block: three plans without weights, which are inputs bound
from the checkpoint, so that one block plan serves all blocks and every fine-tune.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from worldrt.engine.bundle import Bundle, Component, Denoiser, Graph
from worldrt.engine.constants import constants_of
from worldrt.engine.errors import UnsupportedError
from worldrt.engine.memory import available_bytes
from worldrt.engine.plans import BuildJob, BuildOptions, Library, Range, Target
from worldrt.engine.profiles import profile_of
from worldrt.engine.weights import WeightStore, weight_key

BlockWeights = Literal["inputs", "constants"]
SMALL_BYTES = 2_000_000_000
BUILD_FACTOR = 4
"""A builder holds about so many times the weights that become constants of a plan."""


@dataclass(frozen=True)
class Wish:
    """How plans are to be built, for all graphs of a bundle alike. `batch` and `overrides` as of `profile_of`."""

    library: Library
    target: Target
    options: BuildOptions = field(default_factory=BuildOptions)
    batch: int = 2
    overrides: Mapping[str, Range] = field(default_factory=dict)
    block_weights: str = "auto"


def jobs_of(bundle: Bundle, name: str, store: WeightStore, wish: Wish) -> list[BuildJob]:
    """Every plan of component `name`."""
    component = bundle.manifest.components()[name]
    constants = form_of(component, store, wish.block_weights) == "constants"
    made: list[BuildJob] = []
    for key in component.graphs:
        instances: Iterable[int | None] = (None,)
        if isinstance(component, Denoiser) and key in component.block_graphs() and constants:
            instances = component.instances(key)
        made += [job_of(bundle, name, key, wish, store if constants else None, block) for block in instances]
    return made


def job_of(
    bundle: Bundle, name: str, graph_name: str, wish: Wish, store: WeightStore | None = None, block: int | None = None
) -> BuildJob:
    """One plan. With a `store`, the weight inputs of the graph (of instance `block`) become constants."""
    component = bundle.manifest.components()[name]
    graph = component.graphs[graph_name]
    profile = profile_of(bundle.manifest, name, graph_name, batch=wish.batch, overrides=wish.overrides)
    return BuildJob(
        wish.library,
        graph,
        bundle.path(graph.file),
        bundle.weight_root,
        component.precision,
        profile,
        wish.target,
        wish.options,
        constants_of(graph, store, block or 0) if store is not None else (),
        block,
    )


def form_of(component: Component, store: WeightStore, asked: str = "auto") -> Literal["whole", "inputs", "constants"]:
    """The form of a component's plans; only the block form of a transformer has a choice."""
    if not isinstance(component, Denoiser) or component.form == "whole":
        return "whole"
    return choose_block_weights(component, store, asked)


def choose_block_weights(denoiser: Denoiser, store: WeightStore, asked: str = "auto") -> BlockWeights:
    """Where the weights of a block graph are to be, if that is left open (`auto`).

    Constants let the builder lay weights out as its kernels like them, but every plan then holds its weights once more
    (on disk, and 4 times in memory while it is built), is built for each block, and is of no use to another checkpoint.
    So they are for transformers of up to 2 GB of weights, where a block can be built in the memory that is free; larger
    ones share one block plan that takes its weights as inputs.

    Quantised blocks are constants: a library multiplies in 8 bits only where it knows the scales when it builds.
    Raises `UnsupportedError` where they are asked for as inputs.
    """
    if denoiser.quantization is not None:
        if asked == "inputs":
            raise UnsupportedError(
                f"blocks quantised to {denoiser.quantization} would be computed in {denoiser.precision} with their "
                "weights as inputs; have them as constants of the engines: --block_weights constants"
            )
        return "constants"
    if asked in ("inputs", "constants"):
        return "inputs" if asked == "inputs" else "constants"
    blocks = [weight_bytes(denoiser.graphs[denoiser.block_graph(i)], store, i) for i in range(denoiser.blocks - 1)]
    one = max(blocks)
    whole = sum(blocks) + sum(weight_bytes(denoiser.graphs[name], store) for name in ("embed", "head"))
    free = available_bytes()
    fits = free is None or BUILD_FACTOR * one <= free
    return "constants" if whole <= SMALL_BYTES and fits else "inputs"


def weight_bytes(graph: Graph, store: WeightStore, block: int = 0) -> int:
    """Bytes of the weights that one instance of a graph uses, as they are stored."""
    keys = (weight_key(weight, block) for weight in graph.weights)
    return sum(store.owner[key].tensors[key].nbytes for key in keys if key in store.owner)
