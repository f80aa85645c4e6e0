"""Pictures for browsers that cannot decode video: one JPEG for each frame."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.sinks.base import VideoFormat

QUANTISER = 5  # 2 (best) to 31


class JpegEncoder:
    """Encodes frames of a format, each by itself. For one thread."""

    def __init__(self, video: VideoFormat) -> None:
        self._layout, self.fps = video.pixel_format, video.fps
        self._context: Any = av.CodecContext.create("mjpeg", "w")
        self._context.width, self._context.height, self._context.pix_fmt = video.width, video.height, "yuvj420p"
        self._context.framerate = Fraction(video.fps)
        self._context.thread_count = 1
        self._context.qmin = self._context.qmax = QUANTISER

    def encode(self, frame: LiveFrame) -> bytes:
        """A JPEG file."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.picture), format=self._layout)
        source = None if self._layout == "rgb24" else "ITU709"
        full: Any = picture.reformat(
            format="yuvj420p", src_colorspace=source, dst_colorspace="ITU601", dst_color_range="JPEG", threads=1
        )
        return b"".join(bytes(packet) for packet in self._context.encode(full))
