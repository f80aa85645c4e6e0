"""What a reader module in this folder holds, and what all readers promise.

    source = open_source(Path("clip.mp4"))
    last = source.last(5)

Frames are uint8 RGB (h, w, 3) as people see them: turned upright, transparency over black, 16 bits rounded to 8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from worldrt.engine import plugin
from worldrt.engine.errors import InputError

Frame = np.ndarray[Any, np.dtype[np.uint8]]
PACKAGE = "worldrt.runtime.sources"
DEFAULT_READER = "media"
MAX_PIXELS = 100_000_000  # of a picture; a small file can claim to be far more than memory holds


class Source(ABC):
    """A picture or a video. A picture is one frame. Every method reads the file anew and raises `InputError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """All frames in the order they are shown, read one after another as they are asked for."""

    @abstractmethod
    def last(self, count: int) -> Frame:
        """The last `count` frames (count, h, w, 3), the latest one last; the beginning of a long video is not read."""

    def first(self, count: int) -> Frame:
        """The first `count` frames (count, h, w, 3)."""
        return stacked(self.path, list(islice(self.frames(), count)), count)


class ReaderModule(Protocol):
    """The functions of a reader module."""

    def check(self) -> None:
        """Raises `InputError` where what the reader needs is not installed."""
        ...

    def open_source(self, path: Path) -> Source:
        """The path is that of a file."""
        ...


def open_source(path: Path, reader: str = DEFAULT_READER) -> Source:
    """The picture or video at `path`, to be read by `reader` (`media`: PyAV; `dali`: NVIDIA DALI).

    Raises `InputError` for an unknown reader, one that is not installed, and where there is no such file. What the file
    holds is seen when frames are asked for.
    """
    module = check_reader(reader)
    check_file(path)
    return module.open_source(path)


def check_reader(reader: str) -> ReaderModule:
    """The module of a reader. Raises `InputError` where there is none of that name, or it is not installed."""
    module: ReaderModule = plugin.load(PACKAGE, reader)
    module.check()
    return module


def check_file(path: Path) -> None:
    """Raises `InputError` where there is no file that can be read."""
    if path.is_dir():
        raise InputError(f"{path}: it is a folder; give a picture or a video")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a picture or a video")


def stacked(path: Path, frames: Iterable[Frame], count: int) -> Frame:
    """`count` frames as one array (count, h, w, 3). Raises `InputError` where there are fewer or their sizes differ."""
    kept = list(frames)
    if len(kept) < max(1, count):
        why = "; a picture is one frame: give a video, or ask for 1 frame" if len(kept) == 1 else ""
        raise InputError(f"{path}: expected {count} frame(s) or more, got {len(kept)}{why}")
    if len({frame.shape for frame in kept}) > 1:
        raise InputError(f"{path}: the size of its frames changes within the last {count}; give one of one size")
    return np.stack(kept)


def check_pixels(path: Path, width_px: int, height_px: int) -> None:
    """Raises `InputError` for a picture that is larger than memory should be asked to hold."""
    if width_px * height_px > MAX_PIXELS:
        raise InputError(
            f"{path}: {width_px}x{height_px} pixels, and {MAX_PIXELS // 1_000_000} million are the most that is read; "
            "give a smaller one"
        )


def unreadable(path: Path, why: object) -> InputError:
    """A file that is not a picture or a video, or a damaged one."""
    return InputError(f"{path}: cannot be read as a picture or a video: {why}")
