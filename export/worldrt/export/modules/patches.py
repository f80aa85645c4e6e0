"""Latents as tokens. Shape letters: B batch, C channels, T latent frames, H and W latent rows and columns, S tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def patchify(x_BCTHW: Tensor, size: int) -> Tensor:
    """(B, T, S, C * size * size): the vector of a patch runs over channel, row, column."""
    grid = torch.unflatten(torch.unflatten(x_BCTHW, 4, (-1, size)), 3, (-1, size))
    return grid.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(2, 3)
