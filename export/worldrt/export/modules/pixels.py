"""From decoded video to the bytes of frames."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PixelFormat = Literal["rgb24", "nv12", "yuv420p"]


def to_pixels(video_BCTHW: Tensor, pixel_format: PixelFormat) -> Tensor:
    """uint8 frames of a float32 RGB video in [-1, 1]; values outside are clamped, levels rounded half up.

    `rgb24` is (B, T, H, W, 3). `nv12` and `yuv420p` are (B, T, 3 H / 2, W): H rows of luma, then chroma, alternating
    or as two planes. (The official writer truncates levels instead of rounding them, which darkens every picture by
    half a level; that is not copied.)
    """
    video_BCTHW = video_BCTHW.clamp(-1, 1)
    if pixel_format == "rgb24":
        # the Cast is last: TensorRT takes uint8 for outputs only, not between two layers
        return (video_BCTHW.permute(0, 2, 3, 4, 1) * 127.5 + 128.0).to(torch.uint8)
    rgb = (video_BCTHW + 1) / 2
    luma = 16 + 219 * _luma(rgb)
    chroma = _chroma(F.avg_pool3d(rgb, (1, 2, 2)))
    width = luma.shape[-1]
    if pixel_format == "nv12":
        rows = [torch.stack(chroma, dim=-1).flatten(3)]
    else:
        rows = [torch.unflatten(plane.flatten(2), 2, (-1, width)) for plane in chroma]
    return (torch.cat([luma, *rows], dim=2) + 0.5).to(torch.uint8)


def _luma(rgb_BCTHW: Tensor) -> Tensor:
    """Y' in [0, 1], (B, T, H, W); ITU-R BT.709-6 section 3."""
    r, g, b = rgb_BCTHW.unbind(1)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _chroma(rgb_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
    """Cb and Cr levels, limited range; ITU-R BT.709-6 sections 3 and 4."""
    r, _, b = rgb_BCTHW.unbind(1)
    luma = _luma(rgb_BCTHW)
    return 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748
