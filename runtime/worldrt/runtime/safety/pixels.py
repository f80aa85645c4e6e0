"""Frames as a guard sees and changes them: RGB, or planes of BT.709 in limited range."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.runtime.safety.base import Box, Frame, PixelFormat

BLOCKS = 5  # of a pixelated face, in each direction


def rgb_of(frame: Frame, pixel_format: PixelFormat) -> Frame:
    """uint8 RGB (H, W, 3) of a frame; colours of 2x2 pixels are shared where it has planes."""
    if pixel_format == "rgb24":
        return frame
    luma, *colours = planes(frame, pixel_format)
    chroma = np.concatenate(colours, -1).repeat(2, 0).repeat(2, 1).astype(np.float32)
    y = (luma[..., 0].astype(np.float32) - 16) * (255 / 219)
    blue, red = (chroma[..., i] - 128 for i in (0, 1))
    blue, red = blue * (255 / 224), red * (255 / 224)
    kr, kb = 0.2126, 0.0722
    r, b = y + 2 * (1 - kr) * red, y + 2 * (1 - kb) * blue
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    rgb: Frame = np.clip(np.rint(np.stack([r, g, b], -1)), 0, 255).astype(np.uint8)
    return rgb


def planes(frame: Frame, pixel_format: PixelFormat) -> list[Frame]:
    """Views (rows, columns, channels) of a frame: one of RGB; of nv12 the luma and both colours; of yuv420p three."""
    if pixel_format == "rgb24":
        return [frame]
    rows, columns = frame.shape[0] * 2 // 3, frame.shape[1]
    luma, rest = frame[:rows, :, None], frame[rows:].reshape(-1)
    if pixel_format == "nv12":
        return [luma, rest.reshape(rows // 2, columns // 2, 2)]
    return [luma, *rest.reshape(2, rows // 2, columns // 2, 1)]


def pixelated(frame: Frame, boxes: list[Box], pixel_format: PixelFormat) -> Frame:
    """A copy of a frame in which each box is 5 x 5 flat blocks, of the mean of what they cover."""
    if not boxes:
        return frame
    changed: Frame = np.array(frame, order="C")
    rows, columns = planes(changed, pixel_format)[0].shape[:2]
    for box in boxes:
        left, top, right, bottom = (min(max(edge, 0), end) for edge, end in zip(box, (columns, rows) * 2, strict=True))
        for plane in planes(changed, pixel_format):
            step = rows // plane.shape[0]  # a colour of a plane that covers some of the face goes with it
            _flatten(plane[top // step : -(-bottom // step), left // step : -(-right // step)])
    return changed


def _flatten(region: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    rows, columns = (np.arange(size) * BLOCKS // max(size, 1) for size in region.shape[:2])
    for row in np.unique(rows):
        for column in np.unique(columns):
            block = np.ix_(rows == row, columns == column)
            region[block] = np.rint(region[block].mean((0, 1)))
