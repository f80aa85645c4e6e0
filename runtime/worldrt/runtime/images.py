"""Resizing in numpy as torchvision does it: a triangle filter, widened when shrinking so that nothing aliases."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

Frames = np.ndarray[Any, np.dtype[np.uint8]]
Float32 = np.ndarray[Any, np.dtype[np.float32]]
BELOW = 2.0**-11  # a sum of weighted bytes that is this little below a whole number is that number
BAND = 32  # rows


def cover(frames_THWC: Frames, width: int, height: int) -> Frames:
    """uint8 RGB frames scaled, keeping their aspect ratio, until they cover width x height, then cut at the centre.

    Sizes, rounding and the place of the cut are those of the official code: sides are rounded up, half a pixel of the
    cut goes to the even side, and values are cut off, not rounded. Only what is kept is computed.
    """
    rows, columns = frames_THWC.shape[1:3]
    if (rows, columns) == (height, width):
        return frames_THWC
    scale = max(width / columns, height / rows)
    down, first_row = _window(rows, ceil(scale * rows), height)
    across, first_column = _window(columns, ceil(scale * columns), width)
    source = frames_THWC[:, first_row:, first_column:][:, : down.shape[1], : across.shape[1]]
    return np.stack([_scaled(frame, down, across) for frame in source])


def resize(frames_THWC: Frames, width: int, height: int) -> Frames:
    """uint8 RGB frames at another size (antialiased bilinear), values cut off."""
    rows, columns = frames_THWC.shape[1:3]
    down = _weights(range(rows), range(height), rows / height)
    across = _weights(range(columns), range(width), columns / width)
    return np.stack([_scaled(frame, down, across) for frame in frames_THWC])


def _scaled(frame: Frames, down: Float32, across: Float32) -> Frames:
    rows, columns, channels = len(down), len(across), frame.shape[-1]
    tall = _weighted(down, frame.reshape(len(frame), -1)).reshape(rows, -1, channels)
    wide = _weighted(across, tall.transpose(1, 0, 2).reshape(-1, rows * channels)).reshape(columns, rows, channels)
    return np.asarray(np.clip(wide.transpose(1, 0, 2) + np.float32(BELOW), 0, 255), np.uint8, "C")


def _weighted(weights: Float32, lines: np.ndarray[Any, Any]) -> Float32:
    """weights @ lines, a band of rows at a time: each needs few of the lines, and they become float32 as needed."""
    made = np.empty((len(weights), lines.shape[1]), np.float32)
    for i in range(0, len(weights), BAND):
        band = weights[i : i + BAND]
        used = np.flatnonzero(band.any(0))
        needed = slice(used[0], used[-1] + 1)
        np.matmul(band[:, needed], lines[needed].astype(np.float32, copy=False), out=made[i : i + BAND])
    return made


def _window(source: int, target: int, kept: int) -> tuple[Float32, int]:
    """Weights of the `kept` middle ones of `target` pixels, over the source pixels that they need, and their first."""
    cut, scale = round((target - kept) / 2), source / target
    reach = max(1.0, scale) + 1
    first, after = max(0, int((cut + 0.5) * scale - reach)), min(source, ceil((cut + kept - 0.5) * scale + reach))
    return _weights(range(first, after), range(cut, cut + kept), scale), first


def _weights(source: range, target: range, scale: float) -> Float32:
    """(target, source): each row the weights of one output pixel, which add to 1. `scale` is source over target."""
    places, centres = np.array(source) + 0.5, (np.array(target) + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs(places - centres[:, None]) / max(1.0, scale))
    normal: Float32 = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normal
