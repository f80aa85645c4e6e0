"""Animated WebP by Pillow: FFmpeg reads still WebP only."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.sources._pixels import Frame, opaque
from worldrt.runtime.sources.base import unreadable


def frames_of(path: Path) -> Iterator[Frame]:
    """uint8 RGB (h, w, 3) of each frame. Raises `InputError`."""
    try:
        pillow: Any = importlib.import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: it is an animated WebP, and Pillow, which reads them, is not installed: "
            "pip install 'worldrt[images]'; or give an MP4 or a GIF"
        ) from error
    try:
        with pillow.open(path, formats=["WEBP"]) as picture:
            for i in range(picture.n_frames):
                picture.seek(i)
                yield opaque(np.asarray(picture.convert("RGBA")))
    except (OSError, EOFError, ValueError, pillow.DecompressionBombError) as error:
        raise unreadable(path, error) from error
