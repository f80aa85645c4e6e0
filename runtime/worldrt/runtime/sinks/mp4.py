"""H.264 in MP4 by PyAV (libx264), ready to be streamed, with the colours declared: BT.709, limited range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldrt.engine.errors import InputError, OutputError
from worldrt.engine.files import staged_file
from worldrt.kernels import rgb_to_yuv420
from worldrt.runtime.h264 import CHROMA_SITE, declare_colours, rate_factor
from worldrt.runtime.sinks._background import in_background
from worldrt.runtime.sinks.base import VideoFormat, Write, check_space

ENCODER = {"preset": "fast", "x264-params": CHROMA_SITE}
DEFAULT_QUALITY = 65  # CRF 18
PIXELS_PER_BYTE = 500  # no film that is worth keeping packs more into a byte


@contextmanager
def open_sink(path: Path, video: VideoFormat, *, overwrite: bool) -> Iterator[Write]:
    """Write an MP4. Encoding runs in its own thread."""
    if video.width % 2 or video.height % 2:
        raise InputError(f"{path}: H.264 needs an even width and height, got {video.width}x{video.height}")
    with staged_file(path, overwrite=overwrite) as part:
        check_space(path, 4096 + video.width * video.height * (video.frames or 1) // PIXELS_PER_BYTE)
        with _opened(part, video) as encode, in_background(encode) as put:

            def write(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
                video.check(frame)
                put(_planes(frame, video))

            yield write


def _planes(frame: np.ndarray[Any, Any], video: VideoFormat) -> np.ndarray[Any, Any]:
    """A picture of the caller's that the encoder's thread may keep."""
    planes: np.ndarray[Any, Any] = rgb_to_yuv420(frame[None])[0] if video.pixel_format == "rgb24" else frame.copy()
    return planes


@contextmanager
def _opened(part: Path, video: VideoFormat) -> Iterator[Write]:
    """An open container and the function that encodes one picture; the end of the stream is written at the end."""
    if "libx264" not in av.codecs_available:
        raise OutputError("this build of PyAV has no libx264; pip install av from the package index")
    container = av.open(str(part), "w", format="mp4", options={"movflags": "faststart"})
    try:
        crf = str(rate_factor(DEFAULT_QUALITY if video.quality is None else video.quality))
        stream = container.add_stream("libx264", rate=video.fps, options=ENCODER | {"crf": crf})
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        declare_colours(stream.codec_context)
        layout = "yuv420p" if video.pixel_format == "rgb24" else video.pixel_format

        def encode(planes: np.ndarray[Any, Any]) -> None:
            picture = av.VideoFrame.from_ndarray(planes, format=layout)
            declare_colours(picture)
            if layout != "yuv420p":
                picture = picture.reformat(format="yuv420p")
            container.mux(stream.encode(picture))

        yield encode
        container.mux(stream.encode(None))
    except BaseException:
        _close_quietly(container)
        raise
    container.close()


def _close_quietly(container: Any) -> None:
    """The file is thrown away, so what closing it says does not matter."""
    with suppress(OSError):
        container.close()
