"""Positions as sums of sines and cosines: those of frames in the first quarter of a token, then columns, then rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worldrt.export.modules.tensors import constant


@dataclass(frozen=True)
class Positions:
    """The table maker for tokens of one width. Frames are counted from the start of the window."""

    width: int
    temporal_scale: float
    spatial_scale: float

    def tables(self, position_T: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """float32 (T, 1, D) for the frames at `position`, and (S, D) for the tokens of a frame, row by row. One is zero
        where the other is not; a token gets their sum."""
        temporal = self.width // 4
        by_frame = _sinusoid(position_T / self.temporal_scale, temporal)
        by_row, by_column = (
            _sinusoid(torch.arange(n, dtype=torch.float32, device=position_T.device) / self.spatial_scale, side)
            for n, side in ((rows, 3 * temporal // 2), (columns, 3 * temporal // 2))
        )
        grid = [by_column.unsqueeze(0).expand(rows, -1, -1), by_row.unsqueeze(1).expand(-1, columns, -1)]
        by_token = torch.cat(grid, dim=-1).flatten(0, 1)
        return F.pad(by_frame, (0, 3 * temporal)).unsqueeze(1), F.pad(by_token, (temporal, 0))


def _sinusoid(position_P: Tensor, width: int) -> Tensor:
    """(P, width): sines, then cosines, of frequencies from 1 down to almost 1 / 10000."""
    half = width // 2
    frequencies = constant([10000.0 ** (-k / half) for k in range(half)], like=position_P)
    angles = position_P.unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
