"""The segments with attention cut out of them, so that it may see all frames in some of the heads.

    embed -> (attend -> block) x (blocks - 1) -> attend -> head

Queries, keys and values travel frame-major: q (T, B, H, S, E), kv (T, 2, B, H, S, E). `attend` knows neither how many
heads the model has nor which frames these are, and has no weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from worldrt.export.families.cosmos.block import Block, Conditioning, modulate
from worldrt.export.families.cosmos.denoiser import Embed, pack, timestep, to_x0
from worldrt.export.families.cosmos.dit import FinalLayer, for_batch
from worldrt.export.families.cosmos.rope import RopeTables
from worldrt.export.families.cosmos.variants import PATCH
from worldrt.export.modules import cut
from worldrt.export.modules.tensors import cast


class EmbedCut(Embed):
    """Everything up to the Q, K, V of the first block."""

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
        hidden, q, *rest = super().forward(x_BCTHW, level_BT, position_T, row_T2, clean, mask_BT)
        return hidden, cut.frames_first(q), *rest


class Attend(nn.Module):
    """Self-attention itself."""

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        """attended (T, B, H, S, E), of the frames of q"""
        made = cut.attend(cut.heads_first(q), *cut.keys_and_values(kv))
        return cut.by_frames(made, q.shape[0], q.shape[3])


class RestCut(nn.Module):
    """What follows self-attention in a block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.modulation = block.modulation
        self.rest = block.rest

    def forward(self, hidden: Tensor, attended: Tensor, text: Tensor, emb: Tensor, lora: Tensor) -> Tensor:
        cond = Conditioning(emb, lora)
        _, _, gate = self.modulation(cond)
        made: Tensor = self.rest.after(hidden, cut.joined(attended), gate, cast(text, hidden.dtype), cond)
        return made


class ProjectCut(nn.Module):
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
        q, kv = pack(self.projection(modulate(hidden, shift, scale), cos, sin), hidden)
        return cut.frames_first(q), kv


class BlockCut(nn.Module):
    """The rest of one block, then the Q, K, V of the next."""

    def __init__(self, here: Block, following: Block) -> None:
        super().__init__()
        self.modulation = here.modulation
        self.rest = here.rest
        self.next_modulation = following.modulation
        self.next_projection = following.projection

    def forward(
        self,
        hidden: Tensor,
        attended: Tensor,
        text: Tensor,
        emb: Tensor,
        lora: Tensor,
        rope_cos: Tensor,
        rope_sin: Tensor,
    ) -> tuple[Tensor, ...]:
        """hidden, q, kv"""
        cond = Conditioning(emb, lora)
        _, _, gate = self.modulation(cond)
        hidden = self.rest.after(hidden, cut.joined(attended), gate, cast(text, hidden.dtype), cond)
        shift, scale, _ = self.next_modulation(cond)
        cos, sin = for_batch(RopeTables(rope_cos, rope_sin), hidden.shape[0])
        q, kv = pack(self.next_projection(modulate(hidden, shift, scale), cos, sin), hidden)
        return hidden, cut.frames_first(q), kv


class HeadCut(nn.Module):
    """The rest of the last block, then x0."""

    def __init__(self, last: Block, final: FinalLayer) -> None:
        super().__init__()
        self.modulation = last.modulation
        self.rest = last.rest
        self.final = final

    def forward(
        self,
        hidden: Tensor,
        attended: Tensor,
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
        hidden = self.rest.after(hidden, cut.joined(attended), gate, cast(text, hidden.dtype), cond)
        velocity = self.final(hidden, cond, x_BCTHW.shape[3] // PATCH, x_BCTHW.shape[4] // PATCH)
        return to_x0(velocity, x_BCTHW, timestep(level_BT, mask_BT), clean, mask_BT)
