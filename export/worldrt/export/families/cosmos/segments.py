"""The whole denoiser as three segments that are traced once each, however many blocks there are.

They are cut between blocks, where only the hidden state passes; `denoiser.py` cuts before attention instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.cosmos.block import Block, Conditioning
from worldrt.export.families.cosmos.denoiser import precondition, timestep, to_x0
from worldrt.export.families.cosmos.dit import DiT, FinalLayer, Stem, for_batch
from worldrt.export.families.cosmos.rope import RopeDtype, RopeTables
from worldrt.export.families.cosmos.variants import PATCH, DiTConfig
from worldrt.export.graphs import GraphSource
from worldrt.export.link import Segment


class First(nn.Module):
    """Everything before the first block."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.stem = stem

    def forward(
        self,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        text_BNC: Tensor,
        position_T: Tensor,
        clean: Tensor | None = None,
        mask_BT: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, context, emb, lora, rope_cos, rope_sin"""
        scaled, t_BT = precondition(x_BCTHW, level_BT, clean, mask_BT)
        hidden, cond, tables = self.stem(scaled, t_BT, position_T, mask_BT)
        return hidden, text_BNC.to(hidden.dtype), *cond, *tables


class Middle(nn.Module):
    """One block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, hidden: Tensor, context: Tensor, emb: Tensor, lora: Tensor, rope_cos: Tensor, rope_sin: Tensor
    ) -> Tensor:
        cos, sin = for_batch(RopeTables(rope_cos, rope_sin), hidden.shape[0])
        result: Tensor = self.block(hidden, context, Conditioning(emb, lora), cos, sin)
        return result


class Last(nn.Module):
    """Everything after the last block."""

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


def segments(config: DiTConfig, dtype: str, rope_dtype: RopeDtype, whole: GraphSource) -> list[Segment]:
    """What `worldrt.export.link` makes the graph of `whole` (`Denoise` of the same arguments) from."""
    with torch.device("meta"):
        dit = DiT(config, rope_dtype).to(getattr(torch, dtype))
    given = {spec.name: spec for spec in whole.inputs}
    conditions = tuple(given[name] for name in ("clean", "mask") if name in given)
    hidden = TensorSpec("hidden", dtype, ("batch", "frames", "tokens", config.width))
    context = TensorSpec("context", dtype, ("batch", "text", config.text_width))
    cond = (
        TensorSpec("emb", dtype, ("batch", "frames", config.width)),
        TensorSpec("lora", dtype, ("batch", "frames", 3 * config.width)),
    )
    tables = tuple(
        TensorSpec(f"rope_{part}", "float32", ("frames", "tokens", config.head_dim // 2)) for part in ("cos", "sin")
    )

    def source(module: nn.Module, inputs: tuple[TensorSpec, ...], *outputs: TensorSpec) -> GraphSource:
        # parameters of a block lie below `block`, in the whole below `dit.blocks.{i}`
        names = {name: f"dit.{name.replace('block.', 'blocks.{i}.', 1)}" for name, _ in module.named_parameters()}
        return GraphSource(type(module).__name__.lower(), module, inputs, outputs, names)

    ends = (*cond, given["x"], given["level"], *conditions)
    first = source(First(dit.stem), whole.inputs, hidden, context, *cond, *tables)
    middle = source(Middle(dit.block(0)), (hidden, context, *cond, *tables), hidden)
    last = source(Last(dit.final), (hidden, *ends), *whole.outputs)
    return [Segment(first), Segment(middle, config.blocks), Segment(last)]
