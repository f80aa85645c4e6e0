"""What every H.264 stream of ours has in common."""

from __future__ import annotations

from typing import Any

BT709 = 1  # AVCOL_PRI_BT709, AVCOL_TRC_BT709, AVCOL_SPC_BT709
LIMITED = 1  # AVCOL_RANGE_MPEG
# chroma is sited at the centre of its 2x2 block, as worldrt.kernels.rgb_to_yuv420 makes it
CHROMA_SITE = "chromaloc=1"


def declare_colours(target: Any) -> None:
    """BT.709 in limited range, on a codec context or a frame."""
    target.color_primaries, target.color_trc, target.colorspace, target.color_range = BT709, BT709, BT709, LIMITED


def rate_factor(quality: int) -> int:
    """x264's constant rate factor for a quality from 1 to 100: 0 keeps everything, 51 next to nothing."""
    return round((100 - quality) * 51 / 100)
