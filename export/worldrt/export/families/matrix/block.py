"""Blocks of the diffusion transformer. Attention is over video and text together; a block is cut before it.

Parameters have the names of official checkpoints; shape letters are those of `dit.py`, H is the number of heads here
and E the head dimension. Modulation depends on the noise level of a frame, so it is kept per frame (B, T, 1, D). The
text stream takes that of the window's last frame, which is the noisiest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.matrix.variants import DiTConfig
from worldrt.export.modules.attention import Heads, scaled_dot_product, split_heads
from worldrt.export.modules.tensors import cast

EPS = 1e-5
HEAD_EPS = 1e-6
UNSEEN = -1e9
"""Added to the score of a control that is not to be seen; its weight is exactly zero."""


class Conditioning(NamedTuple):
    """Embedded noise levels: of each frame (B, T, E), and of the window's last frame (B, 1, E)."""

    emb: Tensor
    text_emb: Tensor


class Streams(NamedTuple):
    """Hidden states: video (B, T, S, D) and text (B, N, D)."""

    video: Tensor
    text: Tensor

    def joined(self) -> Tensor:
        """(B, N + L, D), the text first."""
        return torch.cat([self.text, self.video.flatten(1, 2)], dim=1)

    def parted(self, joined: Tensor) -> Streams:
        """The same of a joined tensor."""
        count = self.text.shape[1]
        return Streams(joined[:, count:].view_as(self.video), joined[:, :count])


class Parts(NamedTuple):
    """Shift, scale and gate of video (B, T, 1, D), then of text (B, 1, D)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor
    text_shift: Tensor
    text_scale: Tensor
    text_gate: Tensor


class Modulation(nn.Module):
    """LayerNorm, and the shift, scale and gate of both streams by the noise levels."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.time_width, 6 * config.width)
        self.norm = nn.LayerNorm(config.width, eps=EPS)

    def parts(self, cond: Conditioning) -> Parts:
        table = self.linear(F.silu(torch.cat(cond, dim=1)))
        half = table.shape[-1] // 2
        video = table[:, :-1, :half].unsqueeze(2).chunk(3, dim=-1)
        return Parts(*video, *table[:, -1:, half:].chunk(3, dim=-1))

    def forward(self, streams: Streams, parts: Parts) -> Streams:
        video = modulate(self.norm(streams.video), parts.shift, parts.scale)
        return Streams(video, modulate(self.norm(streams.text), parts.text_shift, parts.text_scale))


class Attention(nn.Module):
    """Projections of attention with normalised queries and keys."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads, width = config.heads, config.width
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (nn.LayerNorm(config.head_dim, eps=HEAD_EPS) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def project(self, x_BLD: Tensor, context_BLD: Tensor) -> Heads:
        """Queries of x, keys and values of the context."""
        q = self.norm_q(split_heads(self.to_q(x_BLD), self.heads))
        k = self.norm_k(split_heads(self.to_k(context_BLD), self.heads))
        return Heads(q, k, split_heads(self.to_v(context_BLD), self.heads))

    def output(self, attended_BLD: Tensor) -> Tensor:
        out: Tensor = self.to_out[0](attended_BLD)
        return out


class Gelu(nn.Module):
    """A linear layer and GELU in its tanh form."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, wide)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        wide = config.mlp_ratio * config.width
        self.net = nn.ModuleList([Gelu(config.width, wide), nn.Identity(), nn.Linear(wide, config.width)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net[2](self.net[0](x))
        return out


class Block(nn.Module):
    """`project` | `rest`: joint attention and the feed-forward layers. The bar is where the block form is cut."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = Modulation(config), Modulation(config)
        self.attn1 = Attention(config)
        self.ff = FeedForward(config)

    def project(self, streams: Streams, cond: Conditioning) -> Heads:
        """Queries, keys and values (B, H, N + L, E), the text first."""
        joined = self.norm1(streams, self.norm1.parts(cond)).joined()
        return self.attn1.project(joined, joined)

    def rest(self, streams: Streams, heads: Heads, cond: Conditioning) -> Streams:
        return self.after(streams, scaled_dot_product(*heads), cond)

    def after(self, streams: Streams, attended: Tensor, cond: Conditioning) -> Streams:
        """What follows attention (B, N + L, D), the text first."""
        streams = _gated(streams, streams.parted(self.attn1.output(attended)), self.norm1.parts(cond))
        parts = self.norm2.parts(cond)
        spread = self.ff(self.norm2(streams, parts).joined())
        return _gated(streams, streams.parted(spread), parts)

    def forward(self, streams: Streams, cond: Conditioning) -> Streams:
        return self.rest(streams, self.project(streams, cond), cond)


class ControlBlock(nn.Module):
    """Attention from the video to the controls of the window's frames.

    It was trained with each control repeated for every token of its frame, under a causal mask over tokens: token p of
    frame i sees S copies of each earlier control and p + 1 copies of its own. Copies of a key weigh as one key with the
    logarithm of their number added to its score, so F keys and `control_bias` do the same.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm1 = Modulation(config)
        self.attn1 = Attention(config)

    def forward(self, x_BTSD: Tensor, control_BFD: Tensor, cond: Conditioning, bias_TSF: Tensor) -> Tensor:
        parts = self.norm1.parts(cond)
        normed = self.norm1(Streams(x_BTSD, control_BFD), parts)
        q, k, v = self.attn1.project(normed.video.flatten(1, 2), normed.text)
        # written out: no fused kernel is made for so few keys
        scores = cast((q * q.shape[-1] ** -0.5) @ k.transpose(2, 3), torch.float32)
        weights = (scores + bias_TSF.flatten(0, 1)).softmax(dim=-1)
        attended = (cast(weights, v.dtype) @ v).transpose(1, 2).flatten(2)
        return x_BTSD + parts.gate * self.attn1.output(attended).view_as(x_BTSD)


def control_bias(position_T: Tensor, tokens: int, frames: int, place_T2: Tensor | None = None) -> Tensor:
    """float32 (T, S, F): log S for the controls of earlier frames, log(p + 1) for that of a frame itself at token p.
    Of frames that are parts of others, `place` tells how many tokens lie before them, and S of the whole."""
    device = position_T.device
    frame_F = torch.arange(frames, dtype=torch.float32, device=device)
    token_S = torch.arange(1, tokens + 1, dtype=torch.float32, device=device)
    ahead_TF = frame_F - position_T.unsqueeze(1)
    if place_T2 is None:
        seen, most = token_S.unsqueeze(1), token_S[-1:]
    else:
        seen, most = (place_T2[:, :1] + token_S).unsqueeze(2), place_T2[:, 1:]
    earlier = torch.where(ahead_TF < 0, most.log(), UNSEEN)
    return torch.where(ahead_TF.unsqueeze(1) == 0, seen.log(), earlier.unsqueeze(1))


def modulate(normed: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return normed * (1 + scale) + shift


def _gated(streams: Streams, change: Streams, parts: Parts) -> Streams:
    return Streams(streams.video + parts.gate * change.video, streams.text + parts.text_gate * change.text)
