"""Several views as one picture, and conditions laid over what was made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from worldrt.engine.errors import InputError

Pictures = np.ndarray[Any, np.dtype[np.uint8]]
Layout = Literal["row", "column", "grid"]
LAYOUTS: tuple[Layout, ...] = ("row", "column", "grid")
OPACITY = 0.6


def mosaic(views_VHWC: Pictures, layout: Layout = "row") -> Pictures:
    """uint8 RGB (V, h, w, 3) as one picture: beside each other, below each other, or in a grid that is as wide as it
    is high, or wider; what it has too much is black. Raises `InputError` for another layout."""
    if layout not in LAYOUTS:
        raise InputError(f"mosaic: expected one of {', '.join(LAYOUTS)}, got '{layout}'")
    count, height, width, channels = views_VHWC.shape
    columns = mosaic_columns(count, layout)
    rows = -(-count // columns)
    whole = np.zeros((rows * columns, height, width, channels), np.uint8)
    whole[:count] = views_VHWC
    tiled = whole.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return np.ascontiguousarray(tiled.reshape(rows * height, columns * width, channels))


def mosaic_columns(count: int, layout: Layout) -> int:
    """How many views lie beside each other."""
    return {"row": count, "column": 1, "grid": math.ceil(math.sqrt(count))}[layout]


def mosaic_size(count: int, width: int, height: int, layout: Layout = "row") -> tuple[int, int]:
    """(width, height) of a mosaic in pixels."""
    columns = mosaic_columns(count, layout)
    return columns * width, -(-count // columns) * height


def overlay(views_VHWC: Pictures, images: Mapping[str, Pictures], opacity: float = OPACITY) -> Pictures:
    """Views (V, H, W, 3) under their condition images (V, h, w, 3) by kind, of which the brightest shows; black is
    clear. Values are cut off, and the pixels of images of another size repeated, as the official preview does it."""
    height, width = views_VHWC.shape[1:3]
    brightest = np.maximum.reduce([_nearest(image, width, height) for image in images.values()])
    shown = brightest.astype(np.float32) / np.float32(255)
    alpha = shown.max(-1, keepdims=True) * np.float32(opacity)
    made: Pictures = (shown * 255 * alpha + views_VHWC * (1 - alpha)).astype(np.uint8)
    return made


def _nearest(image_VHWC: Pictures, width: int, height: int) -> Pictures:
    rows, columns = image_VHWC.shape[1:3]
    if (rows, columns) == (height, width):
        return image_VHWC
    return image_VHWC[:, np.arange(height) * rows // height][:, :, np.arange(width) * columns // width]
