"""An MP4 that can be read at any time, also when the process is killed, and is an ordinary one when the stream ends.

Access units are muxed as they are, in fragments of one group of pictures; at the end an index of the whole file takes
the fragments' place (FFmpeg's `hybrid_fragmented`).
"""

from __future__ import annotations

import errno
import io
import os
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path

import av

from worldrt.engine.errors import InputError, OutputError
from worldrt.engine.files import check_place
from worldrt.runtime.live.mux import open_muxer, packet
from worldrt.runtime.live.sinks.base import Feed, Takes
from worldrt.runtime.sinks.base import VideoFormat, check_space

CAPACITY = 256  # a disk may stall for seconds and the recording loses nothing
LEAST_BYTES = 1 << 20
OPTIONS = {"movflags": "hybrid_fragmented", "flush_packets": "1"}


def open_live(place: str, video: VideoFormat, *, overwrite: bool) -> Recording:
    """Raises `OutputError` where the file exists (unless `overwrite`) or cannot be written. A file that is there is
    replaced when the first picture comes."""
    path = Path(place)
    if video.width % 2 or video.height % 2:
        raise InputError(f"{path}: H.264 needs an even width and height, got {video.width}x{video.height}")
    check_place(path, overwrite=overwrite)
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written: it is a folder; give the name of a file")
    check_space(path, LEAST_BYTES)
    made = not path.exists()
    try:
        os.close(os.open(path, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if made else 0), 0o666))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return Recording(path, made, video.fps)


class Recording:
    """The file, from the first key on."""

    takes: Takes = "units"
    capacity = CAPACITY

    def __init__(self, path: Path, made: bool, fps: int) -> None:
        self.path, self.place, self._made, self._fps = path, str(path), made, fps

    def abandon(self) -> None:
        """Remove the empty file that held the place."""
        with suppress(OSError):
            if self._made and not self.path.stat().st_size:
                self.path.unlink()

    def run(self, feed: Feed) -> None:
        first = next(iter(feed), None)
        if first is None:
            return self.abandon()
        frames = 0
        with open(self.path, "wb", buffering=0) as raw:
            file = _File(raw)
            container, stream = open_muxer(file, "mp4", OPTIONS, first)
            try:
                feed.phase("sending")
                for unit in chain([first], feed):
                    container.mux(packet(unit, unit.picture, stream, self._fps))
                    file.whole_bytes = file.tell()
                    feed.sent(unit, time.monotonic())
                    frames += 1
                container.close()
            except (OSError, av.FFmpegError) as error:
                file.fail(error)
                with suppress(OSError, av.FFmpegError):
                    container.close()  # to free it: nothing more is written
                raise self._error(file.failed or error, frames) from error

    def _error(self, error: Exception, frames: int) -> OutputError:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"cannot be written: {getattr(error, 'strerror', None) or error}"
        return OutputError(f"{self.path}: {what}; of {frames} pictures the file holds what was written by then")


class _File:
    """What the muxer writes to. After an error nothing more is written and what was begun is cut off, so that what lies
    there stays readable. A call of the muxer writes whole fragments, so they end at `whole_bytes`, where one ended."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self.failed: Exception | None = None
        self.whole_bytes = 0

    def write(self, data: bytes) -> int:
        if self.failed is None:
            view = memoryview(data)
            try:
                while view:
                    view = view[self._raw.write(view) :]
            except OSError as error:
                self.fail(error)
                raise
        return len(data)

    def fail(self, error: Exception) -> None:
        """The first error decides."""
        if self.failed is None:
            self.failed = error
            with suppress(OSError):
                self._raw.truncate(self.whole_bytes)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()
