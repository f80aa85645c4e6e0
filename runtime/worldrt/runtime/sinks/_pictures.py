"""What sinks of pictures share: `name.png` is one picture, `png:folder` one picture per frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError, OutputError
from worldrt.engine.files import staged_file, staged_folder
from worldrt.runtime.sinks._background import in_background
from worldrt.runtime.sinks.base import VideoFormat, Write, check_space, kind_of

Encode = Callable[[np.ndarray[Any, np.dtype[np.uint8]]], bytes]


@contextmanager
def open_pictures(path: Path, video: VideoFormat, kind: str, encode: Encode, *, overwrite: bool) -> Iterator[Write]:
    """Write one picture, or a folder of `frame_0000.KIND` and so on; `encode` takes uint8 RGB (H, W, 3)."""
    if video.pixel_format != "rgb24":
        raise InputError(f"{path}: {kind.upper()} is made of RGB, not {video.pixel_format}")
    one = kind_of(path) == kind
    if one and video.frames != 1:
        raise InputError(f"{path}: a .{kind} holds one picture; {kind}:{path.with_suffix('')} makes a folder of them")
    name = f"frame_{{:04d}}.{kind}"
    if overwrite and not one:
        _check_replaceable(path, kind)
    staged = staged_file if one else partial(staged_folder, mark=name.format(0))
    with staged(path, overwrite=overwrite) as part:
        check_space(path, 4096)
        count = 0

        def save(frame: np.ndarray[Any, Any]) -> None:
            nonlocal count
            (part if one else part / name.format(count)).write_bytes(encode(frame))
            count += 1

        with in_background(save) as put:

            def write(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
                video.check(frame)
                put(frame.copy())

            yield write


def _check_replaceable(path: Path, kind: str) -> None:
    """Raises `OutputError` for a folder that holds more than frames: all of it would be lost."""
    if path.is_dir():
        frame = re.compile(rf"frame_\d+\.{kind}")
        other = next((item.name for item in path.iterdir() if not frame.fullmatch(item.name)), None)
        if other is not None:
            raise OutputError(f"{path}: it holds more than frames ('{other}') and is not replaced; give another folder")
