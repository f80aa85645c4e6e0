"""What a module in this folder holds, and how a place such as `out.mp4` or `png:frames` finds its module.

    with open_sink("out.mp4", VideoFormat(width=1280, height=704, fps=16)) as write:
        for frame in frames:
            write(frame)

A `with` block that ends normally puts the result in its place; one that ends in an exception leaves nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from worldrt.engine import plugin
from worldrt.engine.errors import InputError, OutputError

PixelFormat = Literal["rgb24", "nv12", "yuv420p"]
Write = Callable[[np.ndarray[Any, np.dtype[np.uint8]]], None]
PACKAGE = "worldrt.runtime.sinks"


@dataclass(frozen=True)
class VideoFormat:
    """Sizes in pixels, frames per second, and the frames to come where that is known. `quality`, from 1 to 100, is for
    sinks that lose something; None leaves it to them.

    A frame is uint8 (height, width, 3) for `rgb24`, (height * 3 / 2, width) planes for `nv12` and `yuv420p`, in BT.709
    limited range.
    """

    width: int
    height: int
    fps: int
    frames: int | None = None
    pixel_format: PixelFormat = "rgb24"
    quality: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        rgb = self.pixel_format == "rgb24"
        return (self.height, self.width, 3) if rgb else (self.height * 3 // 2, self.width)

    def check(self, frame: np.ndarray[Any, Any]) -> None:
        """Raises `InputError` for a frame of another shape or dtype."""
        if frame.shape != self.shape or frame.dtype != np.uint8:
            raise InputError(
                f"frame: expected uint8{list(self.shape)} ({self.pixel_format}), got {frame.dtype}{list(frame.shape)}"
            )


class SinkModule(Protocol):
    """The one function of a sink module."""

    def open_sink(self, path: Path, video: VideoFormat, *, overwrite: bool) -> AbstractContextManager[Write]:
        """Raises `OutputError` where the place cannot be written, before the block is entered, and `InputError` for a
        format that it cannot hold. A frame that was written may be changed by the caller once `write` returns."""
        ...


def open_sink(place: str, video: VideoFormat, *, overwrite: bool = False) -> AbstractContextManager[Write]:
    """Open the sink that a place names. Raises `InputError` for an unknown kind."""
    key, path = split_place(place)
    module: SinkModule = plugin.load(PACKAGE, key)
    return module.open_sink(path, video, overwrite=overwrite)


def split_place(place: str) -> tuple[str, Path]:
    """`png:frames` -> png, frames; `null:` -> null; else the suffix is the kind. Raises `InputError`."""
    kinds = plugin.names(PACKAGE)
    scheme, colon, rest = place.partition(":")
    if colon and scheme in kinds:
        if scheme != "null" and not Path(rest).name:
            raise InputError(f"'{place}': expected a name after {scheme}:")
        return scheme, Path(rest)
    suffix = kind_of(Path(place))
    if suffix not in kinds:
        raise InputError(
            f"'{place}': expected a name that ends in {', '.join(f'.{kind}' for kind in kinds if kind != 'null')}, "
            "png:FOLDER for one picture per frame, or null: to keep nothing"
        )
    return suffix, Path(place)


def kind_of(path: Path) -> str:
    """The kind that a file's suffix names."""
    suffix = path.suffix.lower().lstrip(".")
    return "jpg" if suffix == "jpeg" else suffix


def check_space(path: Path, needed_bytes: int) -> None:
    """Raises `OutputError` where the disk of `path` cannot hold a result of at least `needed_bytes`."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise OutputError(
            f"{path}: the disk is full: {free} bytes are free, at least {needed_bytes} are needed. "
            "Free some space or give another place"
        )
