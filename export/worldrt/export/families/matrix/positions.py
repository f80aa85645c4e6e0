"""Positions as sums of sines and cosines: those of frames in the first quarter of a token, then columns, then rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worldrt.export.modules.sinusoids import of_places


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
        by_frame = of_places(position_T / self.temporal_scale, temporal)
        by_row, by_column = (
            of_places(torch.arange(n, dtype=torch.float32, device=position_T.device) / self.spatial_scale, side)
            for n, side in ((rows, 3 * temporal // 2), (columns, 3 * temporal // 2))
        )
        grid = [by_column.unsqueeze(0).expand(rows, -1, -1), by_row.unsqueeze(1).expand(-1, columns, -1)]
        by_token = torch.cat(grid, dim=-1).flatten(0, 1)
        return F.pad(by_frame, (0, 3 * temporal)).unsqueeze(1), F.pad(by_token, (temporal, 0))
