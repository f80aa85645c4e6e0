"""RGB frames to the planes a video encoder takes, on host memory."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from worldrt.kernels import _arguments, _library, _numpy

UInt8 = npt.NDArray[np.uint8]


def rgb_to_yuv420(
    rgb: npt.NDArray[Any],
    *,
    layout: Literal["i420", "nv12"] = "i420",
    out: UInt8 | None = None,
    dtype: str | None = None,
) -> UInt8:
    """Convert RGB frames to 8-bit 4:2:0: BT.709 matrix, limited range. Returns `out`, uint8 [T, H * 3 / 2, W].

    `rgb` is [T, H, W, 3] with even H and W and any strides (a planar [3, T, H, W] array is `transpose(1, 2, 3, 0)`
    of itself): float32, float16 or bfloat16 in [-1, 1], or uint8. Values outside are clamped, NaN becomes black.
    bfloat16 is an array of ml_dtypes.bfloat16, or with `dtype="bfloat16"` the bits as uint16.

    `out[t]` is H rows of Y (16..235), then chroma (16..240): a plane of U and one of V ("i420"), or U and V
    alternating ("nv12"). It is what PyAV's `VideoFrame.from_ndarray` takes for "yuv420p" and "nv12".

    Chroma comes from the mean RGB of each 2x2 block, so it is sited at the centre of the block (as in MPEG-1 and JPEG;
    H.264 assumes the left edge if nothing is said). Arithmetic is float32, rounded half up; the same bits from the
    compiled kernels for CPU and CUDA and from numpy, at most 1 from the formula in float64.

    Matrix and ranges: ITU-R BT.709-6, sections 3 and 4. Raises ValueError for arguments that break these rules.
    """
    view = _arguments.host("rgb", rgb, dtype)
    shape = _arguments.check_rgb(view.shape, layout)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif np.may_share_memory(rgb, out):
        raise ValueError("out: expected memory of its own, got an overlap with rgb")
    packed = _arguments.pack_yuv(view, _arguments.host("out", out, None, True), layout)
    library, _ = _library.load("cpu")
    if library:
        library.rgb_to_yuv420(packed, 0)
    else:
        _numpy.rgb_to_yuv420(rgb, layout, out)
    return out
