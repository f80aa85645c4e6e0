"""Frames on their way into a file and out of one: the sinks and sources, or PyAV as its manual has it.

Both encode with the same settings of libx264. Of PyAV, FFmpeg's swscale converts the colours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldrt.kernels import rgb_to_yuv420
from worldrt.runtime.h264 import rate_factor
from worldrt.runtime.sinks.base import VideoFormat, open_sink
from worldrt.runtime.sinks.mp4 import DEFAULT_QUALITY, ENCODER
from worldrt.runtime.sources.base import open_source

SIZES = {"480p": (768, 432), "720p": (1280, 704)}
FPS = 16


class Frames:
    """Stages are `convert`, `write` and `read` by size; seconds of one frame."""

    def __init__(self, ours: bool, folder: Path, count: int) -> None:
        self._ours, self._folder, self._count = ours, folder, count
        self._clips = {size: _moving(*pixels, count) for size, pixels in SIZES.items()}

    def round(self, index: int) -> dict[str, Any]:
        """The file of a round is thrown away."""
        seconds: dict[str, float] = {}
        for size, frames in self._clips.items():
            path = self._folder / f"{'ours' if self._ours else 'pyav'}-{size}.mp4"
            calls: dict[str, Callable[[], None]] = {
                "convert": partial(self._convert, frames),
                "write": partial(self._write, frames, path),
                "read": partial(self._read, path),
            }
            for stage, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[f"{stage} {size}"] = (time.perf_counter() - start) / self._count
            path.unlink()
        return {"seconds": seconds}

    def _convert(self, frames: np.ndarray[Any, Any]) -> None:
        for frame in frames:
            if self._ours:
                rgb_to_yuv420(frame[None])
            else:
                av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")

    def _write(self, frames: np.ndarray[Any, Any], path: Path) -> None:
        _, height, width, _ = frames.shape
        if self._ours:
            with open_sink(str(path), VideoFormat(width, height, FPS, len(frames)), overwrite=True) as write:
                for frame in frames:
                    write(frame)
            return
        with av.open(str(path), "w") as container:
            crf = str(rate_factor(DEFAULT_QUALITY))
            stream: Any = container.add_stream("libx264", rate=FPS, options=ENCODER | {"crf": crf})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))

    def _read(self, path: Path) -> None:
        if self._ours:
            read = sum(1 for _ in open_source(path).frames())
        else:
            with av.open(str(path)) as container:
                read = sum(1 for frame in container.decode(video=0) if frame.to_ndarray(format="rgb24") is not None)
        if read != self._count:
            raise AssertionError(f"{path}: {read} frames of {self._count}")


def _moving(width: int, height: int, count: int) -> np.ndarray[Any, Any]:
    """(count, H, W, 3) uint8: smooth shapes that move, and some grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grain = rng.integers(0, 12, (height, width, 3), np.uint8)
    frames = []
    for number in range(count):
        wave = 120 + 100 * np.sin((x + 7 * number) / 60) * np.cos((y - 5 * number) / 45)
        frames.append(np.stack([wave, 0.8 * wave + 20, 230 - wave], -1).astype(np.uint8) + np.roll(grain, number, 1))
    return np.stack(frames)


def open(ours: bool, folder: str, count: int) -> Frames:
    """As the others are opened."""
    return Frames(ours, Path(folder), count)
