"""What the denoiser's graphs are linked from: modules that are traced once each, however many blocks there are.

denoise         First  Middle x blocks before controls  (Middle Steer) x blocks with one  Last
embed           First  Project
block           Rest   Project
block_control   Rest   Steer  Project
head            Rest  (Steer)  Last

With attention cut out there are RestCut and ProjectCut in the places of Rest and Project.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from worldrt.engine.bundle import Diffusion
from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.matrix.block import Block, Conditioning, ControlBlock, Streams
from worldrt.export.families.matrix.cut import ProjectCut, RestCut
from worldrt.export.families.matrix.denoiser import Schedule, given_or_fixed, pack, unpack
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.graphs import cut_specs, tensor_specs
from worldrt.export.families.matrix.variants import PATCH, DiTConfig
from worldrt.export.graphs import GraphSource, is_cut, renamed
from worldrt.export.link import Segment


class First(nn.Module):
    """Latents and text to tokens. The last level is that of the window; without it, that of the last frame."""

    def __init__(self, dit: DiT, levels: tuple[int, ...] | None) -> None:
        super().__init__()
        self.dit, self.levels = dit, levels

    def forward(
        self,
        x_BCTHW: Tensor,
        text_BNC: Tensor,
        control_BFC: Tensor,
        position_T: Tensor,
        level_BT: Tensor | None = None,
        last_level_B1: Tensor | None = None,
        row_T2: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, text_hidden, emb, text_emb, control_hidden, control_bias"""
        level = given_or_fixed(level_BT, self.levels, x_BCTHW)
        last = level[:, -1:] if last_level_B1 is None else last_level_B1
        made = self.dit.prepare(x_BCTHW, level, last, text_BNC, control_BFC, position_T, row_T2)
        return *made.streams, *made.cond, made.control, made.control_bias


class Middle(nn.Module):
    """One block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden: Tensor, text_hidden: Tensor, emb: Tensor, text_emb: Tensor) -> tuple[Tensor, ...]:
        made: tuple[Tensor, ...] = self.block(Streams(hidden, text_hidden), Conditioning(emb, text_emb))
        return made


class Project(nn.Module):
    """Q, K and V of a block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden: Tensor, text_hidden: Tensor, emb: Tensor, text_emb: Tensor) -> tuple[Tensor, ...]:
        """q, text_q, kv, text_kv"""
        streams = Streams(hidden, text_hidden)
        return pack(self.block.project(streams, Conditioning(emb, text_emb)), streams)


class Rest(nn.Module):
    """Attention of a block, and what follows it."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(
        self,
        hidden: Tensor,
        text_hidden: Tensor,
        q: Tensor,
        text_q: Tensor,
        kv: Tensor,
        text_kv: Tensor,
        emb: Tensor,
        text_emb: Tensor,
    ) -> tuple[Tensor, ...]:
        heads = unpack(q, text_q, kv, text_kv)
        return self.block.rest(Streams(hidden, text_hidden), heads, Conditioning(emb, text_emb))


class Steer(nn.Module):
    """One control block."""

    def __init__(self, block: ControlBlock) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, hidden: Tensor, control_hidden: Tensor, emb: Tensor, text_emb: Tensor, control_bias: Tensor
    ) -> Tensor:
        made: Tensor = self.block(hidden, control_hidden, Conditioning(emb, text_emb), control_bias)
        return made


class Last(nn.Module):
    """Tokens to x0."""

    def __init__(self, dit: DiT, schedule: Schedule, levels: tuple[int, ...] | None) -> None:
        super().__init__()
        self.dit, self.schedule, self.levels = dit, schedule, levels

    def forward(self, hidden: Tensor, emb: Tensor, x_BCTHW: Tensor, level_BT: Tensor | None = None) -> Tensor:
        level = given_or_fixed(level_BT, self.levels, x_BCTHW)
        velocity = self.dit.finish(hidden, emb, x_BCTHW.shape[3] // PATCH, x_BCTHW.shape[4] // PATCH)
        return self.schedule.to_x0(velocity, x_BCTHW, level)


class Segments:
    """Makes the segments of the graphs of one denoiser. What is traced of it does not depend on its depth."""

    def __init__(self, config: DiTConfig, diffusion: Diffusion, dtype: str, levels: tuple[int, ...] | None) -> None:
        self.config, self.dtype, self.levels = config, dtype, levels
        with torch.device("meta"):
            shallow = replace(config, blocks=1, control_start=0, control_end=1)
            self.dit = DiT(shallow).to(getattr(torch, dtype))
        block, control = self.dit.transformer_blocks[0], self.dit.control_blocks[0]
        assert isinstance(block, Block) and isinstance(control, ControlBlock)
        self.block, self.control = block, control
        self.schedule = Schedule.of(diffusion)

    def of(self, graph: GraphSource) -> list[Segment]:
        """What `worldrt.export.link` makes a graph from."""
        if graph.name == "attend":
            return []  # it is as small as one
        return list(self._whole(graph) if graph.name == "denoise" else self._part(graph))

    def _whole(self, graph: GraphSource) -> Iterator[Segment]:
        config, top = self.config, {"dit.": "dit."}
        block = {"block.": "dit.transformer_blocks.{i}."}
        control = {"block.": f"dit.control_blocks.{{i-{config.control_start}}}."}
        yield self._first(graph, top)
        i = 0
        while i < config.blocks:
            run = 1 if config.has_control(i) else max(1, (config.control_start if i == 0 else config.blocks) - i)
            yield self._segment(graph, Middle(self.block), _MIDDLE, "hidden text_hidden", block, i, run)
            if config.has_control(i):
                yield self._segment(graph, Steer(self.control), _STEER, "hidden", control, i)
            i += run
        yield self._segment(graph, Last(self.dit, self.schedule, self.levels), "hidden emb x level", "x0", top)

    def _part(self, graph: GraphSource) -> Iterator[Segment]:
        top, names = {"dit.": "dit."}, {spec.name for spec in graph.inputs}
        last = f"dit.transformer_blocks.{self.config.blocks - 1}." if graph.name == "head" else "here."
        # `head` holds the whole network: its own are the last blocks of that
        count = self.config.control_end - self.config.control_start
        control = f"dit.control_blocks.{count - 1}." if graph.name == "head" else "control."
        if graph.name == "embed":
            yield self._first(graph, top)
            project = {"block.": "dit.transformer_blocks.0."}
        else:
            rest: nn.Module = RestCut(self.block) if is_cut(graph) else Rest(self.block)
            looks = "attended text_attended" if is_cut(graph) else "q text_q context_kv text_kv"
            inputs = f"hidden text_hidden {looks} emb text_emb"
            yield self._segment(graph, rest, inputs, "hidden text_hidden", {"block.": last})
            if "control_hidden" in names:
                yield self._segment(graph, Steer(self.control), _STEER, "hidden", {"block.": control})
            project = {"block.": "following."}
        if graph.name == "head":
            yield self._segment(graph, Last(self.dit, self.schedule, None), "hidden emb x level", "x0", top)
        else:
            made = ProjectCut(self.block) if is_cut(graph) else Project(self.block)
            yield self._segment(graph, made, _MIDDLE, "q text_q kv text_kv", project)

    def _first(self, graph: GraphSource, names: Mapping[str, str]) -> Segment:
        outputs = "hidden text_hidden emb text_emb control_hidden control_bias"
        inputs = "x text control position level last_level row"
        return self._segment(graph, First(self.dit, self.levels), inputs, outputs, names)

    def _segment(
        self,
        graph: GraphSource,
        module: nn.Module,
        inputs: str,
        outputs: str,
        names: Mapping[str, str],
        first: int = 0,
        repeat: int = 1,
    ) -> Segment:
        own = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
        known = self._between(graph) | {n: s for n, s in own.items() if n in _OUTER}
        ins, outs = (tuple(known[n] for n in line.split() if n in known) for line in (inputs, outputs))
        name = type(module).__name__.lower()
        source = GraphSource(name, module, ins, outs, renamed(module, names))
        key = (name, ins, outs, replace(self.config, blocks=1, control_start=0, control_end=1), self.dtype, self.levels)
        return Segment(source, key, repeat=repeat, first=first)

    def _between(self, graph: GraphSource) -> dict[str, TensorSpec]:
        """What passes between segments. In whole form the frames of the window are those of x; fixed levels are those
        of a batch of one."""
        window = ("context_frames", "window_frames")
        sizes: dict[int | str, int | str] = dict.fromkeys(window, "frames") if graph.name == "denoise" else {}
        if self.levels is not None:
            sizes = dict.fromkeys((*window, "frames"), len(self.levels))

        def shape(spec: TensorSpec) -> tuple[int | str, ...]:
            alone = {"batch": 1} if self.levels is not None and spec.name.endswith("emb") else {}
            return tuple((sizes | alone).get(entry, entry) for entry in spec.shape)

        specs = tensor_specs(self.config, self.dtype)
        if is_cut(graph):
            specs |= cut_specs(self.config, self.dtype)
        return {key: replace(spec, shape=shape(spec)) for key, spec in specs.items() if key not in _OUTER}


_MIDDLE = "hidden text_hidden emb text_emb"
_STEER = "hidden control_hidden emb text_emb control_bias"
_OUTER = ("x", "x0", "level", "last_level", "text", "control", "position", "row")
