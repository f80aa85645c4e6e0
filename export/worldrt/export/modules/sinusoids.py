"""Numbers as sines and cosines of rising wavelengths (Vaswani et al., Attention is all you need, 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldrt.export.modules.tensors import constant


def of_places(position_P: Tensor, width: int) -> Tensor:
    """float32 (P, width): sines, then cosines, of frequencies from 1 down to almost 1 / 10000."""
    half = width // 2
    angles = position_P.unsqueeze(1) * constant([10000.0 ** (-k / half) for k in range(half)], like=position_P)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def of_numbers(values: Tensor, width: int) -> Tensor:
    """float32 (..., width) of noise levels and other numbers, cosines first."""
    # rounded on the way as in training: one bit of them turns the angle of timestep 999 by 6e-5
    index = torch.arange(width // 2, dtype=torch.float32, device="cpu")
    frequencies: list[float] = (-math.log(10000.0) * index / (width // 2)).exp().tolist()
    angles = values.unsqueeze(-1) * constant(frequencies, values)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
