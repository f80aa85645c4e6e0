"""JPEG by PyAV: `name.jpg` is one picture, `jpg:folder` one picture per frame. Colours are kept at full resolution."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldrt.runtime.sinks._pictures import open_pictures
from worldrt.runtime.sinks.base import VideoFormat, Write

DEFAULT_QUALITY = 95
# JFIF 1.02: Y, Cb, Cr of BT.601 in full range, from R, G, B
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
OFFSET = np.array([0, 128, 128], np.float32)


def open_sink(path: Path, video: VideoFormat, *, overwrite: bool) -> AbstractContextManager[Write]:
    """Write one picture, or a folder of them."""
    encode = partial(jpg_bytes, quality=DEFAULT_QUALITY if video.quality is None else video.quality)
    return open_pictures(path, video, "jpg", encode, overwrite=overwrite)


def jpg_bytes(frame: np.ndarray[Any, np.dtype[np.uint8]], quality: int = DEFAULT_QUALITY) -> bytes:
    """A uint8 RGB (H, W, 3) picture as a JPEG file; `quality` from 1 to 100."""
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = frame.shape[1], frame.shape[0], "yuvj444p"
    context.framerate = 1
    scale = str(min(31, max(1, round((100 - quality) / 5))))  # of the quantisation table; 1 is the finest
    context.options = {"qmin": scale, "qmax": scale, "flags": "bitexact"}
    planes = np.clip(np.rint(frame @ YCBCR.T + OFFSET), 0, 255).astype(np.uint8).transpose(2, 0, 1)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuvj444p")
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
