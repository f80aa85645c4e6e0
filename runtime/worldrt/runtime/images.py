"""Resizing in numpy: a triangle filter, widened when shrinking so that nothing aliases."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

Frames = np.ndarray[Any, np.dtype[np.uint8]]
Float32 = np.ndarray[Any, np.dtype[np.float32]]


def cover(frames_THWC: Frames, width: int, height: int) -> Frames:
    """uint8 RGB frames scaled, keeping their aspect ratio, until they cover width x height, then cut at the centre."""
    rows, columns = frames_THWC.shape[1:3]
    if (rows, columns) == (height, width):
        return frames_THWC
    scale = max(height / rows, width / columns)
    scaled = resize(frames_THWC, max(width, ceil(columns * scale - 1e-6)), max(height, ceil(rows * scale - 1e-6)))
    top, left = (scaled.shape[1] - height) // 2, (scaled.shape[2] - width) // 2
    return np.ascontiguousarray(scaled[:, top : top + height, left : left + width])


def resize(frames_THWC: Frames, width: int, height: int) -> Frames:
    """uint8 RGB frames at another size (antialiased bilinear), rounded to the nearest value."""
    down, across = _weights(frames_THWC.shape[1], height), _weights(frames_THWC.shape[2], width)
    resized = [across @ (np.tensordot(down, frame.astype(np.float32), 1)) for frame in frames_THWC]
    return np.clip(np.rint(np.stack(resized)), 0, 255).astype(np.uint8)


def _weights(source: int, target: int) -> Float32:
    """(target, source): each row the weights of one output pixel, which add to 1."""
    scale = source / target
    support = max(1.0, scale)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source) + 0.5 - centres[:, None]) / support
    weights = np.maximum(0.0, 1.0 - distance)
    normal: Float32 = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normal
