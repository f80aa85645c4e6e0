"""What the denoiser's graphs are linked from: five modules that are traced once each, however many blocks there are.

denoise   First  Middle x blocks  Last          hidden state passes between them; a Middle for each kind of window
embed     FirstRows  Project                    Q and packed K, V pass between them, as in `denoiser.py`
block     Rest   Project
head      Rest   Last

With attention cut out there are RestCut and ProjectCut in the places of Rest and Project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor, nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.cosmos.block import Block, Conditioning, modulate
from worldrt.export.families.cosmos.cut import ProjectCut, RestCut
from worldrt.export.families.cosmos.denoiser import pack, precondition, timestep, to_x0, unpack
from worldrt.export.families.cosmos.dit import DiT, FinalLayer, Stem, for_batch
from worldrt.export.families.cosmos.graphs import block_instances
from worldrt.export.families.cosmos.rope import RopeDtype, RopeTables
from worldrt.export.families.cosmos.variants import PATCH, DiTConfig
from worldrt.export.families.cosmos.windows import Window
from worldrt.export.graphs import GraphSource, is_cut
from worldrt.export.link import Segment


class First(nn.Module):
    """Latents to tokens."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.stem = stem

    def forward(
        self,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        position_T: Tensor,
        clean: Tensor | None = None,
        mask_BT: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, emb, lora, rope_cos, rope_sin"""
        scaled, t_BT = precondition(x_BCTHW, level_BT, clean, mask_BT)
        hidden, cond, tables = self.stem(scaled, t_BT, position_T, mask_BT)
        return hidden, *cond, *tables


class FirstRows(nn.Module):
    """The same of frames that may be some rows of others."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.stem = stem

    def forward(
        self,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        position_T: Tensor,
        row_T2: Tensor,
        clean: Tensor | None = None,
        mask_BT: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, emb, lora, rope_cos, rope_sin"""
        scaled, t_BT = precondition(x_BCTHW, level_BT, clean, mask_BT)
        hidden, cond, tables = self.stem(scaled, t_BT, position_T, mask_BT, first_row_T=row_T2[:, 0])
        return hidden, *cond, *tables


class Middle(nn.Module):
    """One block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, hidden: Tensor, text: Tensor, emb: Tensor, lora: Tensor, rope_cos: Tensor, rope_sin: Tensor
    ) -> Tensor:
        cos, sin = for_batch(RopeTables(rope_cos, rope_sin), hidden.shape[0])
        result: Tensor = self.block(hidden, text.to(hidden.dtype), Conditioning(emb, lora), cos, sin)
        return result


class Project(nn.Module):
    """Q, K and V of a block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.modulation = block.modulation
        self.projection = block.projection

    def forward(
        self, hidden: Tensor, emb: Tensor, lora: Tensor, rope_cos: Tensor, rope_sin: Tensor
    ) -> tuple[Tensor, ...]:
        """q, kv"""
        shift, scale, _ = self.modulation(Conditioning(emb, lora))
        cos, sin = for_batch(RopeTables(rope_cos, rope_sin), hidden.shape[0])
        return pack(self.projection(modulate(hidden, shift, scale), cos, sin), hidden)


class Rest(nn.Module):
    """Self-attention of a block, and what follows it."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.modulation = block.modulation
        self.rest = block.rest

    def forward(self, hidden: Tensor, q: Tensor, kv: Tensor, text: Tensor, emb: Tensor, lora: Tensor) -> Tensor:
        cond = Conditioning(emb, lora)
        _, _, gate = self.modulation(cond)
        result: Tensor = self.rest(hidden, unpack(q, kv), gate, text.to(hidden.dtype), cond)
        return result


class Last(nn.Module):
    """Tokens to x0."""

    def __init__(self, final: FinalLayer) -> None:
        super().__init__()
        self.final = final

    def forward(
        self,
        hidden: Tensor,
        emb: Tensor,
        lora: Tensor,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        clean: Tensor | None = None,
        mask_BT: Tensor | None = None,
    ) -> Tensor:
        rows, columns = x_BCTHW.shape[3] // PATCH, x_BCTHW.shape[4] // PATCH
        velocity = self.final(hidden, Conditioning(emb, lora), rows, columns)
        return to_x0(velocity, x_BCTHW, timestep(level_BT, mask_BT), clean, mask_BT)


def segments(config: DiTConfig, dtype: str, rope_dtype: RopeDtype, graph: GraphSource) -> list[Segment]:
    """What `worldrt.export.link` makes one of the denoiser's graphs from; `graph` is that of the same arguments."""
    if graph.name == "attend":
        return []  # it is as small as one
    computed, windows = getattr(torch, dtype), config.block_windows()
    cut = is_cut(graph)
    with torch.device("meta"):
        dit = DiT(replace(config, blocks=1, windows=None), rope_dtype).to(computed)
        kinds = {window: Block(config, window).to(computed) for window in windows}
    specs = _specs(config, dtype, cut)

    def segment(
        module: nn.Module,
        inputs: str,
        outputs: str,
        names: Mapping[str, str],
        window: Window | None = None,
        blocks: Sequence[int] = (0,),
    ) -> Segment:
        known = specs | {spec.name: spec for spec in graph.inputs if spec.name in ("x", "level", "clean", "mask")}

        def chosen(line: str) -> tuple[TensorSpec, ...]:
            return tuple(known[name] for name in line.split() if name in known)

        weights = {name: _renamed(name, names) for name, _ in module.named_parameters()}
        source = GraphSource(type(module).__name__.lower(), module, chosen(inputs), chosen(outputs), weights)
        # behind the first one, both tasks are alike
        shape = replace(config, windows=None)
        if not isinstance(module, First | FirstRows):
            shape = replace(shape, rope_ratio=(1, 1, 1), condition_mask=False)
        key = (source.name, source.inputs, shape, window, dtype, rope_dtype)
        return Segment(source, key, repeat=len(blocks), first=blocks[0])

    projects = ProjectCut if cut else Project
    project = "hidden emb lora rope_cos rope_sin", "q kv"
    rest = f"hidden {'attended' if cut else 'q context_kv'} text emb lora", "hidden"
    whole = graph.name == "denoise"
    first = segment(
        First(dit.stem) if whole else FirstRows(dit.stem),
        "x level position clean mask" if whole else "x level position row clean mask",
        "hidden emb lora rope_cos rope_sin",
        {"stem.": "dit.stem."} if whole else {},
    )
    last = segment(
        Last(dit.final), "hidden emb lora x level clean mask", "x0", {"final.": "dit.final."} if whole else {}
    )
    if whole:
        inputs, names = "hidden text emb lora rope_cos rope_sin", {"block.": "dit.blocks.{i}."}
        runs = [(w, list(run)) for w, run in groupby(range(config.blocks), key=windows.__getitem__)]
        middle = [segment(Middle(kinds[w]), inputs, "hidden", names, w, run) for w, run in runs]
        return [first, *middle, last]
    if graph.name == "embed":
        return [first, segment(projects(dit.block(0)), *project, {})]
    window = windows[block_instances(config).get(graph.name, [-1])[0]]  # `head` has the last block
    here = segment((RestCut if cut else Rest)(kinds[window]), *rest, {}, window)
    if graph.name == "head":
        return [here, last]
    following = {"modulation.": "next_modulation.", "projection.": "next_projection."}
    return [here, segment(projects(dit.block(0)), *project, following)]


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The name of a segment's parameter in the graph that it is linked into."""
    for prefix, replacement in names.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def _specs(config: DiTConfig, dtype: str, cut: bool) -> dict[str, TensorSpec]:
    """What passes between segments, and the inputs that all of these graphs have."""
    heads, head_dim, width = config.heads, config.width // config.heads, config.width
    tokens = config.frame_tokens
    kv = (2, "batch", heads, tokens, head_dim)
    frames_first = ("frames", "batch", heads, tokens, head_dim)
    table = ("frames", tokens, head_dim // 2)
    return {
        "hidden": TensorSpec("hidden", dtype, ("batch", "frames", tokens, width)),
        "q": TensorSpec("q", dtype, frames_first if cut else ("batch", heads, "frames", tokens, head_dim)),
        "attended": TensorSpec("attended", dtype, frames_first),
        "kv": TensorSpec("kv", dtype, ("frames", *kv)),
        "context_kv": TensorSpec("kv", dtype, ("context_frames", *kv)),
        "emb": TensorSpec("emb", dtype, ("batch", "frames", width)),
        "lora": TensorSpec("lora", dtype, ("batch", "frames", 3 * width)),
        "rope_cos": TensorSpec("rope_cos", "float32", table),
        "rope_sin": TensorSpec("rope_sin", "float32", table),
        "text": TensorSpec("text", "float32", ("batch", "text", config.text_width)),
        "position": TensorSpec("position", "float32", ("frames",)),
        "row": TensorSpec("row", "float32", ("frames", 2)),
        "x0": TensorSpec("x0", "float32", ("batch", config.latent_channels, "frames", *config.latent_size)),
    }
