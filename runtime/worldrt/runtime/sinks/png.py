"""PNG by PyAV: `name.png` is one picture, `png:folder` one picture per frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldrt.engine.errors import InputError
from worldrt.engine.files import staged_file, staged_folder
from worldrt.runtime.sinks._background import in_background
from worldrt.runtime.sinks.base import VideoFormat, Write, check_space


@contextmanager
def open_sink(path: Path, video: VideoFormat, *, overwrite: bool) -> Iterator[Write]:
    """Write one picture, or a folder of `frame_0000.png` and so on."""
    if video.pixel_format != "rgb24":
        raise InputError(f"{path}: PNG holds RGB, not {video.pixel_format}")
    one = path.suffix.lower() == ".png"
    if one and video.frames != 1:
        raise InputError(f"{path}: a .png holds one picture; png:{path.with_suffix('')} makes a folder of them")
    staged = staged_file(path, overwrite=overwrite) if one else staged_folder(path, overwrite=overwrite)
    with staged as part:
        check_space(path, 4096)
        count = 0

        def save(frame: np.ndarray[Any, Any]) -> None:
            nonlocal count
            (part if one else part / f"frame_{count:04d}.png").write_bytes(png_bytes(frame))
            count += 1

        with in_background(save) as put:

            def write(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
                video.check(frame)
                put(frame.copy())

            yield write


def png_bytes(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A uint8 RGB (H, W, 3) picture as a PNG file."""
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = frame.shape[1], frame.shape[0], "rgb24"
    context.framerate = 1
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
