"""Recording what is shown, into files that the server names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from worldrt.engine.errors import OutputError
from worldrt.runtime.live.sinks.base import Feed
from worldrt.runtime.live.sinks.mp4 import open_live
from worldrt.runtime.live.stamps import Stamps
from worldrt.runtime.serve.broadcast import Broadcast

FINISH_S = 10.0


class Recorder:
    """One recording at a time, MP4 in `folder`. `changed` is called, in any thread, when one ends by itself."""

    def __init__(self, broadcast: Broadcast, folder: Path, changed: Callable[[], None]) -> None:
        self._broadcast, self._folder, self._changed = broadcast, folder, changed
        self._lock = threading.Lock()
        self._feed: Feed | None = None
        self._name = ""
        self.problem = ""

    @property
    def name(self) -> str | None:
        """The file that is being written; None where nothing is recorded."""
        feed = self._feed
        return self._name if feed is not None and feed.state.phase not in ("ended", "failed") else None

    def start(self) -> str:
        """Begin a recording, or go on with the one that runs; its name. Raises `OutputError` where that cannot be."""
        with self._lock:
            if self.name is not None:
                return self._name
            broadcast = self._broadcast
            if broadcast.output is None or broadcast.video is None:
                raise OutputError("recording: the world is not there yet; try again later")
            path = self._free_path()
            sink = open_live(str(path), broadcast.video, overwrite=False)
            self.problem, self._name = "", path.name
            self._feed = Feed(sink, broadcast.output.units, _unmeasured, self._told)
            return self._name

    def stop(self) -> str | None:
        """End the recording; its name, or None where there was none."""
        with self._lock:
            feed, self._feed = self._feed, None
            if feed is None:
                return None
            feed.end(FINISH_S)
            return self._name

    def _free_path(self) -> Path:
        stem = time.strftime("%Y%m%d-%H%M%S")
        for number in range(100):
            path = self._folder / (f"{stem}-{number}.mp4" if number else f"{stem}.mp4")
            if not path.exists():
                return path
        raise OutputError(f"{self._folder}: no free name for a recording")

    def _told(self, text: str) -> None:
        feed = self._feed
        if feed is not None and feed.state.phase == "failed":
            self.problem = f"recording {self._name}: {feed.state.detail}"
        self._changed()


def _unmeasured(place: str, stamps: Stamps) -> None:
    """Latency is that of what viewers get."""
