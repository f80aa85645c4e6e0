"""The segments with attention to video and text cut out of them, so that it may see all frames in some of the heads.

    embed -> (attend -> block) x (blocks - 1) -> attend -> head

Of the video, what passes is frame-major: q and attended (T, B, H, S, E), kv (T, 2, B, H, S, E). Of the text, which is
in every part of a window, the heads come first: text_q and text_attended (H, B, N, E), text_kv (H, 2, B, N, E).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldrt.export.families.matrix.block import Block, Conditioning, ControlBlock, Streams
from worldrt.export.families.matrix.denoiser import Embed, Schedule, controlled, pack
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.variants import PATCH
from worldrt.export.modules import cut
from worldrt.export.modules.attention import Heads


class EmbedCut(Embed):
    """Everything up to the Q, K, V of the first block."""

    def forward(
        self,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        last_level_B1: Tensor,
        text_BNC: Tensor,
        control_BFC: Tensor,
        position_T: Tensor,
        row_T2: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, text_hidden, q, text_q, kv, text_kv, emb, text_emb, control_hidden, control_bias"""
        made = super().forward(x_BCTHW, level_BT, last_level_B1, text_BNC, control_BFC, position_T, row_T2)
        return *made[:2], *_cut(*made[2:6]), *made[6:]


class Attend(nn.Module):
    """Attention over video and text."""

    def forward(self, q: Tensor, text_q: Tensor, kv: Tensor, text_kv: Tensor) -> tuple[Tensor, Tensor]:
        """attended, text_attended"""
        k, v = cut.keys_and_values(kv)
        text_k, text_v = text_kv.permute(1, 2, 0, 3, 4).unbind(0)
        pairs = ((text_q.transpose(0, 1), cut.heads_first(q)), (text_k, k), (text_v, v))
        made = cut.attend(*(torch.cat(pair, dim=2) for pair in pairs))
        count = text_q.shape[2]
        return cut.by_frames(made[:, :, count:], q.shape[0], q.shape[3]), made[:, :, :count].transpose(0, 1)


class RestCut(nn.Module):
    """What follows attention in a block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(
        self,
        hidden: Tensor,
        text_hidden: Tensor,
        attended: Tensor,
        text_attended: Tensor,
        emb: Tensor,
        text_emb: Tensor,
    ) -> tuple[Tensor, ...]:
        return self.block.after(
            Streams(hidden, text_hidden), _joined(attended, text_attended), Conditioning(emb, text_emb)
        )


class ProjectCut(nn.Module):
    """Q, K and V of a block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden: Tensor, text_hidden: Tensor, emb: Tensor, text_emb: Tensor) -> tuple[Tensor, ...]:
        """q, text_q, kv, text_kv"""
        streams = Streams(hidden, text_hidden)
        return _packed(self.block.project(streams, Conditioning(emb, text_emb)), streams)


class BlockCut(nn.Module):
    """The rest of one block, with the control block behind it where there is one, then the Q, K, V of the next."""

    def __init__(self, here: Block, following: Block, control: ControlBlock | None = None) -> None:
        super().__init__()
        self.here, self.following, self.control = here, following, control

    def forward(
        self,
        hidden: Tensor,
        text_hidden: Tensor,
        attended: Tensor,
        text_attended: Tensor,
        emb: Tensor,
        text_emb: Tensor,
        control_hidden: Tensor | None = None,
        control_bias: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, text_hidden, q, text_q, kv, text_kv"""
        streams, cond = Streams(hidden, text_hidden), Conditioning(emb, text_emb)
        streams = self.here.after(streams, _joined(attended, text_attended), cond)
        streams = controlled(self.control, streams, cond, control_hidden, control_bias)
        return *streams, *_packed(self.following.project(streams, cond), streams)


class HeadCut(nn.Module):
    """The rest of the last block, with the control block behind it where there is one, then x0."""

    def __init__(self, dit: DiT, schedule: Schedule) -> None:
        super().__init__()
        self.dit, self.schedule = dit, schedule

    def forward(
        self,
        hidden: Tensor,
        text_hidden: Tensor,
        attended: Tensor,
        text_attended: Tensor,
        emb: Tensor,
        text_emb: Tensor,
        x_BCTHW: Tensor,
        level_BT: Tensor,
        control_hidden: Tensor | None = None,
        control_bias: Tensor | None = None,
    ) -> Tensor:
        streams, cond = Streams(hidden, text_hidden), Conditioning(emb, text_emb)
        last = self.dit.transformer_blocks[-1]
        assert isinstance(last, Block)
        streams = last.after(streams, _joined(attended, text_attended), cond)
        control = None if control_hidden is None else self.dit.control_blocks[-1]
        assert control is None or isinstance(control, ControlBlock)
        streams = controlled(control, streams, cond, control_hidden, control_bias)
        rows, columns = x_BCTHW.shape[3] // PATCH, x_BCTHW.shape[4] // PATCH
        return self.schedule.to_x0(self.dit.finish(streams.video, emb, rows, columns), x_BCTHW, level_BT)


def _packed(heads: Heads, streams: Streams) -> tuple[Tensor, ...]:
    q, text_q, kv, text_kv = pack(heads, streams)
    return _cut(q, text_q, kv, text_kv)


def _cut(q: Tensor, text_q: Tensor, kv: Tensor, text_kv: Tensor) -> tuple[Tensor, ...]:
    return cut.frames_first(q), text_q.transpose(0, 1), kv, text_kv.permute(2, 0, 1, 3, 4)


def _joined(attended: Tensor, text_attended: Tensor) -> Tensor:
    """(B, N + L, D), the text first."""
    return torch.cat([text_attended.permute(1, 2, 0, 3).flatten(2), cut.joined(attended)], dim=1)
