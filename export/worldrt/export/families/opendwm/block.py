"""Blocks of the diffusion transformer. A joint block (Esser et al., Scaling rectified flow transformers, 2024) attends
over one picture and its text; temporal and cross-view blocks over the same place in all frames, and over one row in all
views.

Parameters have the names of official checkpoints. Shape letters: B batch, T frames, V views, S tokens
of one picture, L text tokens, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.opendwm.variants import DiTConfig
from worldrt.export.modules.attention import split_heads

EPS = 1e-6
VT_EPS = 1e-5
"""Of all norms in temporal and cross-view blocks."""
UNSEEN = -1e9


class Streams(NamedTuple):
    """Hidden states: pictures (B, T, V, S, D) and their text (B, T, V, L, D)."""

    hidden: Tensor
    text: Tensor


class Modulation(nn.Module):
    """LayerNorm without weights, and `count` vectors that the noise level gives, each (B, T, V, 1, D)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, count * width)
        self.count = count

    def forward(self, x: Tensor, emb_BTVD: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        parts = self.linear(F.silu(emb_BTVD)).unsqueeze(-2).chunk(self.count, dim=-1)
        return plain_norm(x), parts


def plain_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def modulate(normed: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return normed * (1 + scale) + shift


class Attention(nn.Module):
    """Attention with normalised queries and keys. With `text`, of pictures and text together: `ends` where the text is
    not needed any more, and so asks nothing."""

    def __init__(
        self, config: DiTConfig, *, bias: bool = True, eps: float = EPS, text: bool = False, ends: bool = False
    ) -> None:
        super().__init__()
        self.heads, width = config.heads, config.width
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.head_dim, eps=eps) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.asks = text and not ends
        if text:
            self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(2))
            self.norm_added_k = nn.RMSNorm(config.head_dim, eps=eps)
        if self.asks:
            self.add_q_proj, self.to_add_out = (nn.Linear(width, width) for _ in range(2))
            self.norm_added_q = nn.RMSNorm(config.head_dim, eps=eps)

    def forward(self, x_nLD: Tensor, bias: Tensor | None = None) -> Tensor:
        """Over sequences; `bias` is added to the scores."""
        return self.look(*self.project(x_nLD), bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x (..., D), each shaped as x."""
        q, k = (
            norm(torch.unflatten(to(x), -1, (self.heads, -1))).flatten(-2)
            for norm, to in ((self.norm_q, self.to_q), (self.norm_k, self.to_k))
        )
        return q, k, self.to_v(x)

    def look(self, q_nLD: Tensor, k_nMD: Tensor, v_nMD: Tensor, bias: Tensor | None = None) -> Tensor:
        """What sequences see in others, which may be longer."""
        q, k, v = (split_heads(part, self.heads) for part in (q_nLD, k_nMD, v_nMD))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](attended)
        return out

    def alone(self, hidden: Tensor) -> Tensor:
        """Over each picture (B, T, V, S, D)."""
        out: Tensor = self(hidden.flatten(0, 2)).view(hidden.shape)
        return out

    def joint(self, hidden: Tensor, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """Over pictures and their text; that of the text is None where it ends."""
        q, k, v = self._own(hidden.flatten(0, 2))
        flat = text.flatten(0, 2)
        k = torch.cat([k, self.norm_added_k(split_heads(self.add_k_proj(flat), self.heads))], dim=2)
        v = torch.cat([v, split_heads(self.add_v_proj(flat), self.heads)], dim=2)
        if self.asks:
            q = torch.cat([q, self.norm_added_q(split_heads(self.add_q_proj(flat), self.heads))], dim=2)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if not self.asks:
            return self.to_out[0](attended).view(hidden.shape), None
        tokens = hidden.shape[3]
        out, of_text = self.to_out[0](attended[:, :tokens]), self.to_add_out(attended[:, tokens:])
        return out.view(hidden.shape), of_text.view(text.shape)

    def _own(self, x_nLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.norm_q(split_heads(self.to_q(x_nLD), self.heads))
        k = self.norm_k(split_heads(self.to_k(x_nLD), self.heads))
        return q, k, split_heads(self.to_v(x_nLD), self.heads)


class Activated(nn.Module):
    """A linear layer and GELU in its tanh form, or (`gated`) half of it times the exact GELU of the other half."""

    def __init__(self, width: int, wide: int, gated: bool) -> None:
        super().__init__()
        self.proj, self.gated = nn.Linear(width, 2 * wide if gated else wide), gated

    def forward(self, x: Tensor) -> Tensor:
        if not self.gated:
            return F.gelu(self.proj(x), approximate="tanh")
        h, gate = self.proj(x).chunk(2, dim=-1)
        made: Tensor = h * F.gelu(gate)
        return made


class FeedForward(nn.Module):
    """Two linear layers, the inner one four times as wide."""

    def __init__(self, width: int, *, gated: bool = False) -> None:
        super().__init__()
        self.net = nn.ModuleList([Activated(width, 4 * width, gated), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net[2](self.net[0](x))
        return out


class JointBlock(nn.Module):
    """Attention of each picture with its text, a second one (`dual`) of the picture alone, and feed-forward layers.
    After the `last` one the text ends."""

    def __init__(self, config: DiTConfig, *, dual: bool, last: bool) -> None:
        super().__init__()
        width = config.width
        self.norm1 = Modulation(width, 9 if dual else 6)
        self.norm1_context = Modulation(width, 2 if last else 6)
        self.attn = Attention(config, text=True, ends=last)
        self.attn2 = Attention(config) if dual else None
        self.ff = FeedForward(width)
        self.ff_context = None if last else FeedForward(width)

    def forward(self, streams: Streams, emb_BTVD: Tensor) -> Streams:
        hidden, text = streams
        normed, (shift, scale, gate, ff_shift, ff_scale, ff_gate, *dual) = self.norm1(hidden, emb_BTVD)
        text_normed, of_text = self.norm1_context(text, emb_BTVD)
        # the last one, which is all that is left of the text, has them the other way round
        first = (of_text[1], of_text[0]) if self.ff_context is None else of_text[:2]
        attended, text_attended = self.attn.joint(modulate(normed, shift, scale), modulate(text_normed, *first))
        hidden = hidden + gate * attended
        if self.attn2 is not None:
            hidden = hidden + dual[2] * self.attn2.alone(modulate(normed, dual[0], dual[1]))
        hidden = hidden + ff_gate * self.ff(modulate(plain_norm(hidden), ff_shift, ff_scale))
        if self.ff_context is None or text_attended is None:
            return Streams(hidden, text)
        text = text + of_text[2] * text_attended
        text = text + of_text[5] * self.ff_context(modulate(plain_norm(text), of_text[3], of_text[4]))
        return Streams(hidden, text)


class SequenceBlock(nn.Module):
    """What temporal and cross-view blocks do with sequences (n, length, D): feed-forward, attention, feed-forward."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_in, self.norm1, self.norm3 = (nn.LayerNorm(width, eps=VT_EPS) for _ in range(3))
        self.ff_in, self.ff = (FeedForward(width, gated=True) for _ in range(2))
        self.attn1 = Attention(config, bias=False, eps=VT_EPS)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x, q, k, v = self.before(x)
        return self.after(x, self.attn1.look(q, k, v, bias))

    def before(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (..., D) as attention finds it, and its queries, keys and values."""
        x = x + self.ff_in(self.norm_in(x))
        return x, *self.attn1.project(self.norm1(x))

    def after(self, x: Tensor, seen: Tensor) -> Tensor:
        """What follows attention, which gave `seen`."""
        x = x + seen
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class IndexEmbedding(nn.Module):
    """Two linear layers over the sinusoids of slot or view numbers."""

    def __init__(self, channels: int, wide: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, wide), nn.Linear(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return out


class Mixer(nn.Module):
    """sigmoid(m) a + (1 - sigmoid(m)) b; a alone for the clips of the batch where `off` (B,) is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.empty(1))

    def forward(self, a_BTVSD: Tensor, b_BTVSD: Tensor, off_B: Tensor | None) -> Tensor:
        share = 1 - torch.sigmoid(self.mix_factor)
        if off_B is not None:
            share = share * (1 - off_B.to(share.dtype))[:, None, None, None, None]
        return a_BTVSD + share * (b_BTVSD - a_BTVSD)
