"""A video as a critic is shown it: enough frames a second, each small enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.reason.chat import Frames
from worldrt.runtime.reason.pictures import scaled
from worldrt.runtime.reason.vision import FRAME_PX, TOKEN_PX, fitted
from worldrt.runtime.sources.base import open_source

FPS = 16.0  # and as many pixels as 8192 tokens stand for: what Cosmos-Reason1 is asked with by the official script
MOST_PX = 8192 * TOKEN_PX
FEWEST, MOST = 4, 768  # frames
MOST_READ = 20_000


@dataclass(frozen=True)
class Clip:
    """`frames` uint8 RGB (t, h, w, 3), at `fps` a second, of a video that lasts `duration_s`."""

    path: Path
    frames: Frames
    fps: float
    duration_s: float

    def at(self, seconds: float) -> Frames:
        """The frame (h, w, 3) that is nearest to a time."""
        return np.asarray(self.frames[min(len(self.frames) - 1, max(0, round(seconds * self.fps)))])


def read_clip(path: Path) -> Clip:
    """Raises `InputError` for a file that cannot be read as a video."""
    total, rate = _facts(path)
    wanted = set(chosen(total, rate))
    most_px = max(min(FRAME_PX[1], 2 * MOST_PX // len(wanted)), FRAME_PX[0] * 105 // 100)
    frames = [_shrunk(frame, most_px) for i, frame in enumerate(open_source(path).frames()) if i in wanted]
    if not frames:
        raise InputError(f"{path}: it holds no frame that can be read")
    return Clip(path, np.stack(frames), len(wanted) * rate / total, total / rate)


def chosen(total: int, rate: float) -> list[int]:
    """Which of `total` frames at `rate` a second are shown: an even number, evenly spread, at `FPS` where there are as
    many; all of a clip that has fewer than four."""
    count = min(max(total / rate * FPS, FEWEST), MOST, total)
    count = max(int(count) // 2 * 2, 1 if total == 1 else 2)
    return [int(i) for i in np.linspace(0, total - 1, count).round()]


def _facts(path: Path) -> tuple[int, float]:
    """Frames, and frames per second, by what lies in the file and not by what its header claims."""
    from worldrt.runtime.sources.media import opened  # brings PyAV, which who imports worldrt.runtime may not need

    with opened(path) as media:
        total = sum(1 for packet in media.packets() if packet.size)
        rate = float(media.stream.average_rate or 0)
    if not 1 <= total <= MOST_READ or not 0 < rate < 1000:
        raise InputError(f"{path}: expected 1 to {MOST_READ} frames at a known rate, got {total} at {rate:g} a second")
    return total, rate


def _shrunk(frame: Frames, most_px: int) -> Frames:
    height, width = frame.shape[:2]
    if width * height <= most_px:
        return frame
    return scaled(frame, *fitted(width, height, 28, 1, most_px))
