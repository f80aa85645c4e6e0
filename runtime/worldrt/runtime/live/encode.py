"""One H.264 encoding of a live stream: NVENC where it opens, else libx264; no picture waits in it.

Settings are for latency: no B frames, no lookahead, Baseline (which every browser and player decodes), parameter sets
before each key. A trailing access unit delimiter tells parsers, which would else wait for the next picture, that a
picture is complete; it takes one frame period out of the latency of FFmpeg's readers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from worldrt.engine.errors import InputError, OutputError
from worldrt.kernels import rgb_to_yuv420
from worldrt.runtime.h264 import CHROMA_SITE, declare_colours, rate_factor
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.sinks.base import VideoFormat

DELIMITER = b"\x00\x00\x00\x01\x09\xf0"
CLOCK_HZ = 90_000
ENCODERS = ("h264_nvenc", "libx264")
DEFAULT_QUALITY = 55  # CRF 23
KEY_GAP_S = 0.125  # who asks for keys more often waits: they are large, and everyone pays for them
ONE_THREAD_PIXELS = 512 * 288  # above that a second one pays


@dataclass(frozen=True)
class AccessUnit:
    """One encoded picture: Annex B bytes that end in a delimiter (parameter sets first where it is a key), the time at
    90 kHz, and the stamps of its frame."""

    index: int
    data: bytes
    pts: int
    key: bool
    stamps: Stamps

    @property
    def picture(self) -> bytes:
        """The bytes without the delimiter: for files, where the length is known."""
        return self.data.removesuffix(DELIMITER)


class LiveEncoder:
    """Encodes frames of a format, one access unit for each. Not for several threads at once, but for `request_key`.

    `name` is the encoder that opened and `refused` says, one line each, why those before it did not. `gop_s` is the
    longest time without a key, of the stream and of the clock. Times follow the frames' indices at the nominal rate, so
    a dropped frame leaves a gap; where the index goes back (a reset) time goes on. Raises `InputError` for odd sizes,
    `OutputError` where no encoder opens.
    """

    def __init__(
        self,
        video: VideoFormat,
        *,
        gop_s: float = 1.0,
        encoders: Sequence[str] = ENCODERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if video.width % 2 or video.height % 2:
            raise InputError(f"live video: H.264 needs an even width and height, got {video.width}x{video.height}")
        self.video, self.refused = video, list[str]()
        self._gop_s, self._gop = gop_s, max(1, round(gop_s * video.fps))
        self._left, self._clock = list(encoders), clock
        self._key_wanted, self._since_key, self._key_s = False, 0, clock()
        self._ticks = _Ticks(Fraction(CLOCK_HZ, video.fps))
        self.name, self._context = self._opened()

    def request_key(self) -> None:
        """Let one of the next pictures be a key: the very next, unless one came within `KEY_GAP_S`. From any thread."""
        self._key_wanted = True

    def encode(self, frame: LiveFrame) -> AccessUnit:
        """The access unit of a frame, whose memory may be changed afterwards. Raises `InputError` for another format.

        Where the encoder fails while it runs, the next one takes over with a key; `OutputError` when there is none.
        """
        self.video.check(frame.picture)
        planes = _planes(frame.picture, self.video)
        pts = self._ticks.of(frame.index)
        key = self._key_wanted and self._since_key >= KEY_GAP_S * self.video.fps
        key = key or self._clock() - self._key_s >= self._gop_s
        while True:
            try:
                data, is_key = self._encode(planes, pts, key)
                break
            except (av.FFmpegError, EOFError) as error:
                self.refused.append(f"{self.name}: {_reason(error)}")
                self.name, self._context = self._opened()
        if is_key:
            self._key_wanted, self._since_key, self._key_s = False, 0, self._clock()
        self._since_key += 1
        return AccessUnit(frame.index, data, pts, is_key, frame.stamps.at(encoded=self._clock()))

    def _encode(self, planes: np.ndarray[Any, Any], pts: int, key: bool) -> tuple[bytes, bool]:
        picture = av.VideoFrame.from_numpy_buffer(planes, format=self._context.pix_fmt)
        declare_colours(picture)
        picture.pts, picture.time_base = pts, Fraction(1, CLOCK_HZ)
        if key:
            picture.pict_type = av.video.frame.PictureType.I
        packets = self._context.encode(picture)
        if len(packets) != 1:
            raise EOFError(f"gave {len(packets)} packets for a picture instead of 1")
        return bytes(packets[0]) + DELIMITER, packets[0].is_keyframe

    def _opened(self) -> tuple[str, Any]:
        """The first encoder that opens on this machine: that its name is known proves nothing."""
        while self._left:
            name = self._left.pop(0)
            try:
                return name, _open(name, self.video, self._gop)
            except (av.FFmpegError, ValueError) as error:  # ValueError: not in this build
                self.refused.append(f"{name}: {_reason(error)}")
        raise OutputError(f"no encoder for H.264 works here ({'; '.join(self.refused)}); pip install av from PyPI")


class _Ticks:
    """Times at 90 kHz for frame indices; always rising."""

    def __init__(self, period: Fraction) -> None:
        self._period, self._base, self._last = period, 0, -1

    def of(self, index: int) -> int:
        place = self._base + index
        if place <= self._last:
            self._base += self._last + 1 - place
            place = self._last + 1
        self._last = place
        return round(place * self._period)


def _planes(picture: np.ndarray[Any, Any], video: VideoFormat) -> np.ndarray[Any, Any]:
    """What the encoder reads in place; it is done with it when `encode` returns."""
    if video.pixel_format != "rgb24":
        return np.ascontiguousarray(picture)
    planes: np.ndarray[Any, Any] = rgb_to_yuv420(picture[None])[0]
    return planes


def _open(name: str, video: VideoFormat, gop: int) -> Any:
    context: Any = av.CodecContext.create(name, "w")
    context.width, context.height = video.width, video.height
    context.pix_fmt = "yuv420p" if video.pixel_format == "rgb24" else video.pixel_format
    context.time_base, context.framerate = Fraction(1, CLOCK_HZ), video.fps
    context.gop_size, context.max_b_frames = gop, 0
    declare_colours(context)
    factor = str(rate_factor(DEFAULT_QUALITY if video.quality is None else video.quality))
    if name == "h264_nvenc":
        context.options = NVENC | {"qp": factor}
    else:
        context.thread_count = 1 if video.width * video.height <= ONE_THREAD_PIXELS else min(4, os.cpu_count() or 1)
        context.options = X264 | {"crf": factor}
    context.open()
    return context


X264 = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    "profile": "baseline",
    "forced-idr": "1",
    "x264-params": f"repeat-headers=1:scenecut=0:{CHROMA_SITE}",
}
NVENC = {
    "preset": "p1",
    "tune": "ull",
    "profile": "baseline",
    "rc": "constqp",
    "zerolatency": "1",
    "delay": "0",
    "forced-idr": "1",
}


def _reason(error: Exception) -> str:
    """The library's own words where it logged some; they say more than the number of the error."""
    log = getattr(error, "log", None)
    return " ".join(str(log[2] if log else getattr(error, "strerror", None) or error).split())
