"""PNG by PyAV: `name.png` is one picture, `png:folder` one picture per frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldrt.engine.errors import InputError, OutputError
from worldrt.engine.files import staged_file, staged_folder
from worldrt.runtime.sinks._background import in_background
from worldrt.runtime.sinks.base import VideoFormat, Write, check_space

NAME = "frame_{:04d}.png"


@contextmanager
def open_sink(path: Path, video: VideoFormat, *, overwrite: bool) -> Iterator[Write]:
    """Write one picture, or a folder of `frame_0000.png` and so on."""
    if video.pixel_format != "rgb24":
        raise InputError(f"{path}: PNG holds RGB, not {video.pixel_format}")
    one = path.suffix.lower() == ".png"
    if one and video.frames != 1:
        raise InputError(f"{path}: a .png holds one picture; png:{path.with_suffix('')} makes a folder of them")
    if overwrite and not one:
        _check_replaceable(path)
    staged = staged_file if one else partial(staged_folder, mark=NAME.format(0))
    with staged(path, overwrite=overwrite) as part:
        check_space(path, 4096)
        count = 0

        def save(frame: np.ndarray[Any, Any]) -> None:
            nonlocal count
            (part if one else part / NAME.format(count)).write_bytes(png_bytes(frame))
            count += 1

        with in_background(save) as put:

            def write(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
                video.check(frame)
                put(frame.copy())

            yield write


def _check_replaceable(path: Path) -> None:
    """Raises `OutputError` for a folder that holds more than frames: all of it would be lost."""
    if path.is_dir():
        other = next((item.name for item in path.iterdir() if not re.fullmatch(r"frame_\d+\.png", item.name)), None)
        if other is not None:
            raise OutputError(f"{path}: it holds more than frames ('{other}') and is not replaced; give another folder")


def png_bytes(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A uint8 RGB (H, W, 3) picture as a PNG file."""
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = frame.shape[1], frame.shape[0], "rgb24"
    context.framerate = 1
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
