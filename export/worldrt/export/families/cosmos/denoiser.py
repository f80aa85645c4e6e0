"""The denoiser of Cosmos-Predict2, x0 = denoise(x, sigma, ...), whole and in three segments.

Rectified flow: with t = sigma / (1 + sigma) the network sees x (1 - t) and gives a velocity v, and
x0 = x (1 - t) - t v.
A frame with mask 1 is known: the network sees its clean latents at sigma 1e-4, and it comes out as it went in.

The segments meet before self-attention (`block.py`), where Q, K and V are whole tensors that may be gathered from
other devices. Keys and values travel frame-major, (T, 2, B, H, S, E), so that gathering frames is one contiguous copy.
A frame of a segment may be a part of one, some of its rows: `row` (T, 2) holds the first of them, and the rows of the
whole frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldrt.export.families.cosmos.block import Block, Conditioning, modulate
from worldrt.export.families.cosmos.dit import DiT, FinalLayer, Stem, for_batch
from worldrt.export.families.cosmos.rope import RopeTables
from worldrt.export.families.cosmos.variants import CLEAN_SIGMA, PATCH
from worldrt.export.modules.attention import Heads
from worldrt.export.modules.tensors import cast


class Denoise(nn.Module):
    """The whole form. Latents and levels float32 in and out; `clean` and `mask` only where the variant has them."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(
        self,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        text_BNC: Tensor,
        position_T: Tensor,
        clean: Tensor | None = None,
        mask_BT: Tensor | None = None,
    ) -> Tensor:
        scaled, t_BT = precondition(x_BCTHW, level_BT, clean, mask_BT)
        velocity = self.dit(scaled, t_BT, text_BNC, position_T, mask_BT)
        return to_x0(velocity, x_BCTHW, t_BT, clean, mask_BT)


class Embed(nn.Module):
    """Everything up to the Q, K, V of the first block."""

    def __init__(self, stem: Stem, first: Block) -> None:
        super().__init__()
        self.stem = stem
        self.modulation = first.modulation
        self.projection = first.projection

    def forward(
        self,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        position_T: Tensor,
        row_T2: Tensor,
        clean: Tensor | None = None,
        mask_BT: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, q, kv, emb, lora, rope_cos, rope_sin"""
        scaled, t_BT = precondition(x_BCTHW, level_BT, clean, mask_BT)
        hidden, cond, tables = self.stem(scaled, t_BT, position_T, mask_BT, first_row_T=row_T2[:, 0])
        shift, scale, _ = self.modulation(cond)
        heads = self.projection(modulate(hidden, shift, scale), *for_batch(tables, hidden.shape[0]))
        return hidden, *pack(heads, hidden), *cond, *tables


class BlockStep(nn.Module):
    """Self-attention and the rest of one block, then the Q, K, V of the next."""

    def __init__(self, here: Block, following: Block) -> None:
        super().__init__()
        self.modulation = here.modulation
        self.rest = here.rest
        self.next_modulation = following.modulation
        self.next_projection = following.projection

    def forward(
        self,
        hidden: Tensor,
        q: Tensor,
        kv: Tensor,
        text: Tensor,
        emb: Tensor,
        lora: Tensor,
        rope_cos: Tensor,
        rope_sin: Tensor,
    ) -> tuple[Tensor, ...]:
        """hidden, q, kv"""
        cond = Conditioning(emb, lora)
        _, _, gate = self.modulation(cond)
        hidden = self.rest(hidden, unpack(q, kv), gate, cast(text, hidden.dtype), cond)
        shift, scale, _ = self.next_modulation(cond)
        cos, sin = for_batch(RopeTables(rope_cos, rope_sin), hidden.shape[0])
        heads = self.next_projection(modulate(hidden, shift, scale), cos, sin)
        return hidden, *pack(heads, hidden)


class Head(nn.Module):
    """Self-attention and the rest of the last block, then x0."""

    def __init__(self, last: Block, final: FinalLayer) -> None:
        super().__init__()
        self.modulation = last.modulation
        self.rest = last.rest
        self.final = final

    def forward(
        self,
        hidden: Tensor,
        q: Tensor,
        kv: Tensor,
        text: Tensor,
        emb: Tensor,
        lora: Tensor,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        clean: Tensor | None = None,
        mask_BT: Tensor | None = None,
    ) -> Tensor:
        cond = Conditioning(emb, lora)
        _, _, gate = self.modulation(cond)
        hidden = self.rest(hidden, unpack(q, kv), gate, cast(text, hidden.dtype), cond)
        velocity = self.final(hidden, cond, x_BCTHW.shape[3] // PATCH, x_BCTHW.shape[4] // PATCH)
        return to_x0(velocity, x_BCTHW, timestep(level_BT, mask_BT), clean, mask_BT)


def timestep(level_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """t of each frame from its sigma."""
    if mask_BT is not None:
        level_BT = torch.where(mask_BT.bool(), CLEAN_SIGMA, level_BT)
    return level_BT / (level_BT + 1)


def precondition(
    x_BCTHW: Tensor, level_BT: Tensor, clean: Tensor | None, mask_BT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What the network sees: scaled latents with the known frames put in, and t of each frame."""
    t_BT = timestep(level_BT, mask_BT)
    scaled = x_BCTHW * (1 - per_frame(t_BT))
    if clean is not None and mask_BT is not None:
        scaled = torch.where(per_frame(mask_BT).bool(), clean, scaled)
    return scaled, t_BT


def to_x0(velocity: Tensor, x_BCTHW: Tensor, t_BT: Tensor, clean: Tensor | None, mask_BT: Tensor | None) -> Tensor:
    """Clean latents from the velocity, in float32; known frames as they were given."""
    t = per_frame(t_BT)
    x0 = x_BCTHW * (1 - t) - cast(velocity, torch.float32) * t
    return x0 if clean is None or mask_BT is None else torch.where(per_frame(mask_BT).bool(), clean, x0)


def per_frame(value_BT: Tensor) -> Tensor:
    """(B, T) -> (B, 1, T, 1, 1)"""
    return value_BT[:, None, :, None, None]


def pack(heads: Heads, hidden_BTSD: Tensor) -> tuple[Tensor, Tensor]:
    """q (B, H, T, S, E) and kv (T, 2, B, H, S, E)."""
    _, frames, tokens, _ = hidden_BTSD.shape
    q, k, v = (torch.unflatten(part, 2, (frames, tokens)) for part in heads)
    return q, torch.stack([k, v]).permute(3, 0, 1, 2, 4, 5)


def unpack(q: Tensor, kv: Tensor) -> Heads:
    """The inverse of `pack`; kv may hold more frames than q."""
    k, v = kv.permute(1, 2, 3, 0, 4, 5).flatten(3, 4).unbind(0)
    return Heads(q.flatten(2, 3), k, v)
