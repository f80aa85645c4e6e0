"""The block form: the network cut at every temporal and cross-view block, before its attention.

    embed -> block_0 -> block_1 -> ... -> head

A block begins with the attention of one such block and ends with the queries, keys and values of the next; between
them lie the joint blocks that the network has there. Like blocks share a graph, which has the number of the first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.opendwm.block import JointBlock
from worldrt.export.families.opendwm.dit import DiT
from worldrt.export.families.opendwm.graphs import View, layout_graph, tensor_specs
from worldrt.export.families.opendwm.looks import AcrossViews, Before, InTime
from worldrt.export.families.opendwm.segments import Add, First, Joint, Last
from worldrt.export.families.opendwm.variants import DiTConfig
from worldrt.export.graphs import GraphSource

VIEWS, CONTEXT = "views", "context_"


@dataclass(frozen=True)
class Look:
    """A place where pictures see others: temporal (`time`) or cross-view (`view`) block `number`, after a layer."""

    kind: str
    number: int
    layer: int


@dataclass(frozen=True)
class Step:
    """A part of a block: its inputs and outputs by name, and how the names of its parameters begin, here and in the
    checkpoint."""

    module: nn.Module
    inputs: str
    outputs: str
    lists: Mapping[str, str]


class Steps(nn.Module):
    """Parts one after another. Inputs and outputs are those of a graph, in its order."""

    def __init__(self, steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(step.module for step in steps)
        self._names = [(step.inputs.split(), step.outputs.split()) for step in steps]
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        known = dict(zip(self._inputs, given, strict=True))
        for part, (inputs, outputs) in zip(self.parts, self._names, strict=True):
            made = part(*(known[name] for name in inputs))
            known |= zip(outputs, (made,) if isinstance(made, Tensor) else made, strict=False)
        return tuple(known[name] for name in self._outputs)


def looks_of(config: DiTConfig) -> list[Look]:
    """All places where pictures see others, in order."""
    lists = {"time": config.temporal, "view": config.crossview}
    return [
        Look(kind, layers.index(layer), layer)
        for layer in range(config.layers)
        for kind, layers in lists.items()
        if layer in layers
    ]


def chain_of(config: DiTConfig) -> tuple[str, ...]:
    """The graph of each block but the last, which is in `head`."""
    kinds = [_kind(config, *pair) for pair in pairwise(looks_of(config))]
    return tuple(f"block_{kinds.index(kind)}" for kind in kinds)


def instances_of(config: DiTConfig) -> dict[str, list[int]]:
    """The blocks that each graph is used for."""
    chain = chain_of(config)
    return {name: [i for i, other in enumerate(chain) if other == name] for name in dict.fromkeys(chain)}


def _kind(config: DiTConfig, here: Look, following: Look) -> Hashable:
    between = tuple(_layer(config, layer) for layer in range(here.layer + 1, following.layer + 1))
    return here.kind, between, following.kind


def _layer(config: DiTConfig, layer: int) -> Hashable:
    """What tells a joint block, with the residual before it, from others."""
    return layer if layer < config.stages else None, layer in config.dual, layer == config.layers - 1


def block_graphs(config: DiTConfig, view: View, dtype: str = "float32", device: str = "meta") -> list[GraphSource]:
    """`embed`, a graph for each kind of block, `head`, and `layout`; they compute in `dtype`. Views are an axis."""
    return [*_Blocks(config, view, dtype, device).graphs(), layout_graph(config, view, dtype, device)]


class _Blocks:
    def __init__(self, config: DiTConfig, view: View, dtype: str, device: str) -> None:
        self.config, self.columns = config, view.columns
        with torch.device(device):
            kind: Any = getattr(torch, dtype)
            self.dit = DiT(config).to(kind)
            self.ends = DiT(replace(config, layers=0, dual=(), temporal=(), crossview=())).to(kind)
        self.looks = looks_of(config)
        self.specs = tensor_specs(config, view, VIEWS) | carried_specs(config, view, dtype)

    def graphs(self) -> Iterator[GraphSource]:
        first, last = self.looks[0], self.looks[-1]
        begin = Step(First(self.ends), "x level text pooled camera", _STATE, {"dit.": ""})
        yield self._graph("embed", [[begin, *self._between(-1, first.layer), self._before(first)]])
        for name, blocks in instances_of(self.config).items():
            yield self._graph(name, [self._block(i) for i in blocks], blocks)
        end = Step(Last(self.ends), "hidden emb x level", "x0", {"dit.": ""})
        rest = self._between(last.layer, self.config.layers - 1)
        yield self._graph("head", [[self._after(last), *rest, end]])

    def _graph(self, name: str, alike: Sequence[Sequence[Step]], blocks: Sequence[int] = (0,)) -> GraphSource:
        """From the steps of each of some blocks, whose weights alone differ."""
        steps = alike[0]
        inputs, outputs = _outer(steps, name)
        specs = [self.specs[CONTEXT + n if CONTEXT + n in self.specs else n] for n in inputs]
        module = Steps(steps, inputs, outputs)
        weights = {}
        for k, same in enumerate(zip(*alike, strict=True)):
            for parameter, _ in same[0].module.named_parameters():
                prefix = next(prefix for prefix in same[0].lists if parameter.startswith(prefix))
                place = _listed([step.lists[prefix] for step in same], blocks)
                weights[f"parts.{k}.{parameter}"] = place + parameter.removeprefix(prefix)
        return GraphSource(name, module, tuple(specs), tuple(self.specs[n] for n in outputs), weights)

    def _block(self, number: int) -> list[Step]:
        here, following = self.looks[number : number + 2]
        return [self._after(here), *self._between(here.layer, following.layer), self._before(following)]

    def _between(self, after: int, last: int) -> Iterator[Step]:
        """The joint blocks behind layer `after`, up to layer `last`."""
        for layer in range(after + 1, last + 1):
            if layer < self.config.stages:
                yield Step(Add(self.dit, layer), "hidden residual", "hidden", {})
            block = self.dit.transformer_blocks[layer]
            assert isinstance(block, JointBlock)
            outputs = "hidden" if layer == self.config.layers - 1 else "hidden text_hidden"
            lists = {"block.": f"transformer_blocks.{layer}."}
            yield Step(Joint(block), "hidden text_hidden emb", outputs, lists)

    def _before(self, look: Look) -> Step:
        embed, block, _, lists = self._parts(look)
        numbers, axis, kv = ("position", 1, "kv") if look.kind == "time" else ("view", 2, "view_kv")
        return Step(Before(embed, block, axis), f"hidden camera_hidden {numbers}", f"seen q {kv}", lists)

    def _after(self, look: Look) -> Step:
        _, block, mixer, lists = self._parts(look)
        if look.kind == "time":
            return Step(InTime(block, mixer), "hidden seen q kv", "hidden", lists)
        return Step(AcrossViews(block, mixer, self.columns), "hidden seen q view_kv", "hidden", lists)

    def _parts(self, look: Look) -> tuple[Any, Any, Any, dict[str, str]]:
        """Its embedding of numbers, its block and its mixer, and where their parameters lie."""
        lists = _LISTS[look.kind].split()
        parts = [getattr(self.dit, name)[look.number] for name in lists]
        places = {prefix: f"{name}.{look.number}." for prefix, name in zip(_PREFIXES, lists, strict=True)}
        return parts[0], parts[1], parts[2], places


_STATE = "hidden text_hidden emb camera_hidden"
_PREFIXES = ("embed.", "block.", "mixer.")
_LISTS = {
    "time": "time_pos_embeds temporal_transformer_blocks time_mixers",
    "view": "view_pos_embeds crossview_transformer_blocks view_mixers",
}


def _outer(steps: Sequence[Step], name: str) -> tuple[list[str], list[str]]:
    """What steps take from outside, and what of theirs others take: what they make, and is not a thing of their own."""
    made: dict[str, None] = {}
    taken: dict[str, None] = {}
    for step in steps:
        taken |= {n: None for n in step.inputs.split() if n not in made}
        made |= dict.fromkeys(step.outputs.split())
    outputs = [n for n in made if (n == "x0") == (name == "head")]
    return list(taken), outputs


def _listed(places: Sequence[str], blocks: Sequence[int]) -> str:
    """Places that differ in a number as one, with a list of it that block numbers count."""
    if len(set(places)) == 1:
        return places[0]
    name = places[0].partition(".")[0]
    numbers = {block: place.split(".")[1] for block, place in zip(blocks, places, strict=True)}
    return f"{name}.{{{','.join(numbers.get(i, '') for i in range(max(blocks) + 1))}}}."


def carried_specs(config: DiTConfig, view: View, dtype: str) -> dict[str, TensorSpec]:
    """What passes between graphs; `context_` before what is of all frames, or of all views."""
    width, s = config.width, view.tokens
    pictures = ("batch", "frames", VIEWS)
    shapes: dict[str, tuple[int | str, ...]] = {
        "hidden": (*pictures, s, width),
        "seen": (*pictures, s, width),
        "q": (*pictures, s, width),
        "text_hidden": (*pictures, "text", width),
        "emb": (*pictures, width),
        "camera_hidden": (*pictures, 1, width),
        "kv": ("frames", 2, "batch", VIEWS, s, width),
        "view_kv": (VIEWS, 2, "batch", "frames", s, width),
    }
    shapes |= {CONTEXT + n: (CONTEXT + str(shapes[n][0]), *shapes[n][1:]) for n in ("kv", "view_kv")}
    return {key: TensorSpec(key.removeprefix(CONTEXT), dtype, shape) for key, shape in shapes.items()}
