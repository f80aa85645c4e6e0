"""The denoiser of The Matrix, x0 = denoise(x, level, ...), whole and in segments.

Variance-preserving diffusion: x = sqrt(abar) x0 + sqrt(1 - abar) eps, and the network gives v = sqrt(abar) eps -
sqrt(1 - abar) x0, so x0 = sqrt(abar) x - sqrt(1 - abar) v. The level of a frame is its timestep, 0 to 999 in float32;
the tables of sqrt(abar) and sqrt(1 - abar) are constants of the graph.

The segments meet before attention. Keys and values of video travel frame-major, (T, 2, B, H, S, E), so that gathering
frames from other devices is one contiguous copy. The text is in every part of a window, and so are its own keys and
values; every part computes the same text. A part has the positions of its own frames, and the controls of the whole
window and the level of its last frame. A frame of a part may itself be a part of one, some of its rows: `row` (T, 2)
holds the first of them, and the rows of the whole frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from worldrt.engine.bundle import Diffusion
from worldrt.engine.diffusion import alphas_cumprod
from worldrt.export.families.matrix.block import Block, Conditioning, ControlBlock, Streams
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.variants import PATCH
from worldrt.export.modules.attention import Heads
from worldrt.export.modules.tensors import cast, constant


@dataclass(frozen=True)
class Schedule:
    """sqrt(abar) and sqrt(1 - abar) by timestep, as the official scheduler has them."""

    signal: tuple[float, ...]
    noise: tuple[float, ...]

    @classmethod
    def of(cls, diffusion: Diffusion) -> Schedule:
        dtype = np.float32 if diffusion.precision == "float32" else np.float64
        abar = alphas_cumprod(diffusion.beta_start, diffusion.beta_end, diffusion.snr_shift, dtype)
        return cls(tuple(np.sqrt(abar).tolist()), tuple(np.sqrt(1 - abar).tolist()))

    def to_x0(self, velocity: Tensor, x_BCTHW: Tensor, level_BT: Tensor) -> Tensor:
        """Clean latents from v, in float32."""
        timestep = level_BT.to(torch.int64)
        signal, noise = (constant(table, like=x_BCTHW)[timestep] for table in (self.signal, self.noise))
        return per_frame(signal) * x_BCTHW - per_frame(noise) * cast(velocity, torch.float32)


class Denoise(nn.Module):
    """The whole form. Latents and levels float32 in and out. With `levels` these are part of the graph."""

    def __init__(self, dit: DiT, schedule: Schedule, levels: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.dit, self.schedule, self.levels = dit, schedule, levels

    def forward(
        self, x_BCTHW: Tensor, text_BNC: Tensor, control_BTC: Tensor, position_T: Tensor, level_BT: Tensor | None = None
    ) -> Tensor:
        level = given_or_fixed(level_BT, self.levels, x_BCTHW)
        velocity = self.dit(x_BCTHW, level, text_BNC, control_BTC, position_T)
        return self.schedule.to_x0(velocity, x_BCTHW, level)


class Embed(nn.Module):
    """Everything up to the Q, K, V of the first block."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

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
        made = self.dit.prepare(x_BCTHW, level_BT, last_level_B1, text_BNC, control_BFC, position_T, row_T2)
        first = self.dit.transformer_blocks[0]
        assert isinstance(first, Block)
        packed = pack(first.project(made.streams, made.cond), made.streams)
        return *made.streams, *packed, *made.cond, made.control, made.control_bias


class BlockStep(nn.Module):
    """Attention and the rest of one block, with the control block behind it where there is one, then the Q, K, V of the
    next block."""

    def __init__(self, here: Block, following: Block, control: ControlBlock | None = None) -> None:
        super().__init__()
        self.here, self.following, self.control = here, following, control

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
        control_hidden: Tensor | None = None,
        control_bias: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """hidden, text_hidden, q, text_q, kv, text_kv"""
        streams, cond = Streams(hidden, text_hidden), Conditioning(emb, text_emb)
        streams = self.here.rest(streams, unpack(q, text_q, kv, text_kv), cond)
        streams = controlled(self.control, streams, cond, control_hidden, control_bias)
        return *streams, *pack(self.following.project(streams, cond), streams)


class Head(nn.Module):
    """Attention and the rest of the last block, with the control block behind it where there is one, then x0."""

    def __init__(self, dit: DiT, schedule: Schedule) -> None:
        super().__init__()
        self.dit, self.schedule = dit, schedule

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
        x_BCTHW: Tensor,
        level_BT: Tensor,
        control_hidden: Tensor | None = None,
        control_bias: Tensor | None = None,
    ) -> Tensor:
        streams, cond = Streams(hidden, text_hidden), Conditioning(emb, text_emb)
        last = self.dit.transformer_blocks[-1]
        assert isinstance(last, Block)
        streams = last.rest(streams, unpack(q, text_q, kv, text_kv), cond)
        control = None if control_hidden is None else self.dit.control_blocks[-1]
        assert control is None or isinstance(control, ControlBlock)
        streams = controlled(control, streams, cond, control_hidden, control_bias)
        rows, columns = x_BCTHW.shape[3] // PATCH, x_BCTHW.shape[4] // PATCH
        return self.schedule.to_x0(self.dit.finish(streams.video, emb, rows, columns), x_BCTHW, level_BT)


def controlled(
    block: ControlBlock | None, streams: Streams, cond: Conditioning, control: Tensor | None, bias: Tensor | None
) -> Streams:
    """The streams behind a control block, or as they are where there is none."""
    if block is None:
        return streams
    assert control is not None and bias is not None
    return Streams(block(streams.video, control, cond, bias), streams.text)


def given_or_fixed(level_BT: Tensor | None, levels: tuple[int, ...] | None, like: Tensor) -> Tensor:
    """The levels of frames, (B, T) or (1, T)."""
    if level_BT is not None:
        return level_BT
    assert levels is not None
    return constant(levels, like).unsqueeze(0)


def per_frame(value_BT: Tensor) -> Tensor:
    """(B, T) -> (B, 1, T, 1, 1)"""
    return value_BT[:, None, :, None, None]


def pack(heads: Heads, streams: Streams) -> tuple[Tensor, ...]:
    """q (B, H, T, S, E), text_q (B, H, N, E), kv (T, 2, B, H, S, E), text_kv (2, B, H, N, E)."""
    _, frames, tokens, _ = streams.video.shape
    count = streams.text.shape[1]
    video = [torch.unflatten(part[:, :, count:], 2, (frames, tokens)) for part in heads]
    text = [part[:, :, :count] for part in heads]
    return video[0], text[0], torch.stack(video[1:]).permute(3, 0, 1, 2, 4, 5), torch.stack(text[1:])


def unpack(q: Tensor, text_q: Tensor, kv: Tensor, text_kv: Tensor) -> Heads:
    """The inverse of `pack`; kv may hold more frames than q."""
    k, v = kv.permute(1, 2, 3, 0, 4, 5).flatten(3, 4).unbind(0)
    text_k, text_v = text_kv.unbind(0)
    joined = (torch.cat(pair, dim=2) for pair in ((text_q, q.flatten(2, 3)), (text_k, k), (text_v, v)))
    return Heads(*joined)
