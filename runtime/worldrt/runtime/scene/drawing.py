"""Lines as pictures, by Pillow: which pixels a wide line covers is what its rasteriser says."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.scene.boxes import Color
from worldrt.runtime.scene.poses import Float64

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def pillow() -> tuple[Any, Any]:
    """The modules `Image` and `ImageDraw`. Raises `InputError` where Pillow is not installed."""
    try:
        return importlib.import_module("PIL.Image"), importlib.import_module("PIL.ImageDraw")
    except ImportError as error:
        raise InputError("pictures of conditions are drawn by Pillow: pip install 'worldrt[drive]'") from error


def draw_lines(size_px: tuple[int, int], lines: Float64, colors: Sequence[Color], pen_px: int) -> Picture:
    """uint8 RGB (h, w, 3): lines (n, 4) in pixels over black, the later over the earlier ones. `size_px` is (width,
    height)."""
    image_module, draw_module = pillow()
    image = image_module.new("RGB", size_px)
    pen = draw_module.Draw(image)
    for index in _touching(size_px, lines, pen_px):
        pen.line(tuple(lines[index].tolist()), fill=colors[index], width=pen_px)
    return np.array(image)


def _touching(size_px: tuple[int, int], lines: Float64, pen_px: int) -> list[int]:
    """Those lines whose pixels may lie in the picture."""
    margin, (width, height) = pen_px + 2, size_px
    low, high = np.minimum(lines[:, :2], lines[:, 2:]), np.maximum(lines[:, :2], lines[:, 2:])
    inside = (high >= -margin).all(1) & (low[:, 0] <= width + margin) & (low[:, 1] <= height + margin)
    return [int(index) for index in np.flatnonzero(inside)]
