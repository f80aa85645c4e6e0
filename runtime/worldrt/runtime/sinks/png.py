"""PNG by PyAV: `name.png` is one picture, `png:folder` one picture per frame."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldrt.runtime.sinks._pictures import open_pictures
from worldrt.runtime.sinks.base import VideoFormat, Write


def open_sink(path: Path, video: VideoFormat, *, overwrite: bool) -> AbstractContextManager[Write]:
    """Write one picture, or a folder of them."""
    return open_pictures(path, video, "png", png_bytes, overwrite=overwrite)


def png_bytes(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A uint8 RGB (H, W, 3) picture as a PNG file."""
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = frame.shape[1], frame.shape[0], "rgb24"
    context.framerate = 1
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
