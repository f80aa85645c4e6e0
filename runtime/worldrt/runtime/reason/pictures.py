"""Pictures at other sizes and as JPEG files, by PyAV."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

Frames = np.ndarray[Any, np.dtype[np.uint8]]


def scaled(frame: Frames, width: int, height: int) -> Frames:
    """A uint8 RGB (h, w, 3) picture at another size: bicubic, widened when shrinking so that nothing aliases."""
    if frame.shape[:2] == (height, width):
        return frame
    import av

    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    made: Any = picture.reformat(width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
    return np.asarray(made, np.uint8)


def jpeg_bytes(frame: Frames, scale: int = 3) -> bytes:
    """A uint8 RGB (h, w, 3) picture as a JPEG file. `scale` of the quantiser: 2 (best) to 31."""
    import av

    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = frame.shape[1], frame.shape[0], "yuvj420p"
    context.framerate = 1
    context.qmin = context.qmax = scale
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])


def data_url(data: bytes, kind: str) -> str:
    """A file as a URL that holds all of it. `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
