"""Whole pictures for who wants them: the sinks of `worldrt.runtime.sinks` while a world runs, and callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from worldrt.runtime.live.sinks.base import Feed, Takes
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.sinks.base import VideoFormat, Write, open_sink

CAPACITY = 16


class Pictures:
    """A sink of pictures, such as `png:folder`: a result takes its place when the stream ends."""

    takes: Takes = "frames"
    capacity = CAPACITY

    def __init__(self, place: str, video: VideoFormat, *, overwrite: bool) -> None:
        self.place = place
        self._stack = ExitStack()
        opened: AbstractContextManager[Write] = open_sink(place, video, overwrite=overwrite)
        self._write = self._stack.enter_context(opened)

    def abandon(self) -> None:
        """Leave nothing."""
        error = RuntimeError("abandoned")
        self._stack.__exit__(RuntimeError, error, None)

    def run(self, feed: Feed) -> None:
        feed.phase("sending")
        with self._stack:
            for frame in feed:
                self._write(frame.picture)
                feed.sent(frame, time.monotonic())


class Callback:
    """A function of the caller's that gets each frame, in a thread of its own."""

    takes: Takes = "frames"
    capacity = CAPACITY

    def __init__(self, call: Callable[[LiveFrame], None]) -> None:
        self.place, self._call = f"callback {getattr(call, '__name__', type(call).__name__)}", call

    def abandon(self) -> None:
        """Nothing was opened."""

    def run(self, feed: Feed) -> None:
        feed.phase("sending")
        for frame in feed:
            self._call(frame)
            feed.sent(frame, time.monotonic())
