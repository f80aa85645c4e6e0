"""Latents as tokens. Shape letters: B batch, C channels, T latent frames, H and W latent rows and columns, S tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def patchify(x_BCTHW: Tensor, size: int) -> Tensor:
    """(B, T, S, C * size * size): the vector of a patch runs over channel, row, column."""
    grid = torch.unflatten(torch.unflatten(x_BCTHW, 4, (-1, size)), 3, (-1, size))
    return grid.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(2, 3)


def unpatchify(patches: Tensor, rows: int, columns: int, size: int, *, channels_last: bool) -> Tensor:
    """(B, C, T, size rows, size columns) from (B, T, S, C * size * size): the vector of a patch runs over row and
    column, with channels before them or `channels_last`."""
    grid = torch.unflatten(patches, 2, (rows, columns))
    if channels_last:
        moved = torch.unflatten(grid, 4, (size, size, -1)).permute(0, 6, 1, 2, 4, 3, 5)
    else:
        moved = torch.unflatten(grid, 4, (-1, size, size)).permute(0, 4, 1, 2, 5, 3, 6)
    return moved.flatten(5, 6).flatten(3, 4)
