"""Attention as all families compute it. Shape letters: B batch, L length, D width, H heads, E head dimension."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Heads(NamedTuple):
    """Queries, keys and values, each (B, H, L, E), as attention takes them."""

    q: Tensor
    k: Tensor
    v: Tensor


def split_heads(x_BLD: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, E)"""
    return torch.unflatten(x_BLD, -1, (heads, -1)).transpose(1, 2)


def scaled_dot_product(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
    """Attention of everything to everything; (B, L, D). K and V may be longer than Q."""
    return F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE).transpose(1, 2).flatten(2)
