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

    def tables(
        self, position_T: Tensor, rows: int, columns: int, first_row_T: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """float32 (T, 1, D) for the frames at `position`, and (S, D) for the tokens of a frame, row by row. One is zero
        where the other is not; a token gets their sum. Frames that are parts of others begin at `first_row` of them,
        and have (T, S, D)."""
        temporal = self.width // 4
        by_frame = of_places(position_T / self.temporal_scale, temporal)
        row, column = (torch.arange(n, dtype=torch.float32, device=position_T.device) for n in (rows, columns))
        if first_row_T is not None:
            row = (first_row_T.unsqueeze(1) + row).flatten()
        by_row, by_column = (of_places(n / self.spatial_scale, 3 * temporal // 2) for n in (row, column))
        grid = [by_column.unsqueeze(0).expand(row.shape[0], -1, -1), by_row.unsqueeze(1).expand(-1, columns, -1)]
        by_token = torch.cat(grid, dim=-1).flatten(0, 1)
        if first_row_T is not None:
            by_token = torch.unflatten(by_token, 0, (position_T.shape[0], rows * columns))
        return F.pad(by_frame, (0, 3 * temporal)).unsqueeze(1), F.pad(by_token, (temporal, 0))
