"""Attention that is cut out of a block: tensors with their frames first. Shape letters: B batch, T latent frames, S
tokens of one frame, L = T * S, H heads, E head dimension, D = H * E."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def frames_first(q_BHTSE: Tensor) -> Tensor:
    """(T, B, H, S, E)"""
    return q_BHTSE.permute(2, 0, 1, 3, 4)


def heads_first(frames_TBHSE: Tensor) -> Tensor:
    """(B, H, L, E)"""
    return frames_TBHSE.permute(1, 2, 0, 3, 4).flatten(2, 3)


def keys_and_values(kv: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, L, E) each, of kv (T, 2, B, H, S, E)."""
    k, v = kv.permute(1, 2, 3, 0, 4, 5).flatten(3, 4).unbind(0)
    return k, v


def attend(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
    """Attention of everything to everything, head by head; (B, H, L, E). K and V may be longer than Q."""
    return F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE)


def by_frames(attended_BHLE: Tensor, frames: int, tokens: int) -> Tensor:
    """(T, B, H, S, E)"""
    return torch.unflatten(attended_BHLE, 2, (frames, tokens)).permute(2, 0, 1, 3, 4)


def joined(attended_TBHSE: Tensor) -> Tensor:
    """(B, L, D)"""
    return attended_TBHSE.permute(1, 0, 3, 2, 4).flatten(3, 4).flatten(1, 2)
