"""Pictures and films to read: made of numbers that a test knows, and written by PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def photo(height: int = 120, width: int = 180, at: float = 0.0) -> np.ndarray:
    """uint8 RGB that looks like a photograph to a codec: shading, edges, texture, and a disc that moves with `at`."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    texture = np.random.default_rng(5).normal(0, 4, (height, width, 1))
    sky = np.stack([90 + y * 0.5, 130 + y * 0.4, 200 - y * 0.3], -1)
    road = np.stack([70 + 10 * np.sin(x / 7), 70 + 9 * np.sin(x / 7), 74 + x * 0], -1)
    picture = np.where((y > height * 0.6)[..., None], road, sky) + texture
    disc = (x - width * (0.2 + 0.5 * at)) ** 2 + (y - height * 0.55) ** 2 < (height * 0.15) ** 2
    picture[disc] = (190, 40, 50)
    return picture.clip(0, 255).astype(np.uint8)


def clip(count: int = 24, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Frames of `photo` in which the disc goes from left to right."""
    return [photo(height, width, i / max(1, count - 1)) for i in range(count)]


def film(
    path: Path,
    frames: list,
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    colours: tuple[int, int] | None = None,
    times: list[int] | None = None,
    fps: int = 16,
    **options: str,
) -> Path:
    """Write frames (uint8 RGB, or FFmpeg's own). `colours` are FFmpeg's numbers of matrix and range; `times` of frames
    are in thousandths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        first = frames[0]
        stream.height, stream.width = first.shape[:2] if isinstance(first, np.ndarray) else (first.height, first.width)
        stream.pix_fmt = pix_fmt
        stream.thread_count = 1
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if colours is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        for i, frame in enumerate(frames):
            picture = _picture(frame, pix_fmt, colours)
            if times is not None:
                picture.pts, picture.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def planes(values, pix_fmt: str = "yuv444p"):
    """A frame of FFmpeg of uint8 planes Y', Cb, Cr (3, h, w); h and w are multiples of 64. yuv420p takes every second
    value of Cb and Cr."""
    picture = av.VideoFrame(values.shape[2], values.shape[1], pix_fmt)
    for i, (plane, part) in enumerate(zip(picture.planes, values, strict=True)):
        plane.update(np.ascontiguousarray(part[::2, ::2] if i and pix_fmt == "yuv420p" else part).tobytes())
    return picture


def _picture(frame, pix_fmt, colours):
    if not isinstance(frame, np.ndarray):
        return frame
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    matrix, span = colours or (None, None)
    picture = picture.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=span)
    if colours is not None:
        picture.colorspace, picture.color_range = colours
    return picture


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write the display matrix of an MP4's first track: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    entries = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in entries)
    path.write_bytes(data)
    return path
