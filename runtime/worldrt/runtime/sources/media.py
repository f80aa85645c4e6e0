"""Pictures and videos by PyAV (FFmpeg)."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldrt.engine.errors import InputError


def last_frames(path: Path, count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The last `count` frames of a video, or the one of a picture: uint8 RGB (count, h, w, 3).

    Raises `InputError` where the file cannot be read or holds too few frames.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    kept: deque[Any] = deque(maxlen=count)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: it holds no picture")
            kept.extend(container.decode(video=0))
    except av.FFmpegError as error:
        raise InputError(f"{path}: cannot be read as a picture or a video: {error}") from error
    if len(kept) < count:
        raise InputError(f"{path}: expected {count} or more frames, got {len(kept)}")
    return np.stack([frame.to_ndarray(format="rgb24") for frame in kept])
