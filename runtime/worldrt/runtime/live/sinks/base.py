"""What a module in this folder holds: `open_live`, which makes a `LiveSink`; and the thread that a sink runs in.

A sink reads from a ring of its own (`worldrt.runtime.live.fanout`), so however slow it is, the world does not wait for
it. What goes wrong while it runs ends in its state, never in the world.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from worldrt.engine.errors import WorldrtError
from worldrt.runtime.live.encode import AccessUnit
from worldrt.runtime.live.fanout import Fanout
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.sinks.base import VideoFormat

Takes = Literal["frames", "units"]
Phase = Literal["connecting", "sending", "waiting", "ended", "failed"]
Passed = Callable[[str, Stamps], None]
Warn = Callable[[str], None]


class LiveSink(Protocol):
    """One place. `place` names it, without passwords; `takes` says what of the stream; `capacity` is its ring's."""

    place: str
    takes: Takes
    capacity: int

    def run(self, feed: Feed) -> None:
        """Take from the feed until it ends. Called once, in a thread of its own; what it raises ends the sink."""
        ...

    def abandon(self) -> None:
        """The stream will not begin: give back what opening took."""
        ...


class LiveSinkModule(Protocol):
    """The one function of a module here."""

    def open_live(self, place: str, video: VideoFormat, *, overwrite: bool) -> LiveSink:
        """Raises `InputError` or `OutputError` where the place cannot be used."""
        ...


@dataclass(frozen=True)
class SinkState:
    """How a sink is: what it does (with the reason, where it waits or has failed), and what it took and missed."""

    place: str
    phase: Phase
    detail: str
    taken: int
    dropped: int

    def __str__(self) -> str:
        return f"{self.place}: {self.phase}" + (f": {self.detail}" if self.detail else "")


class Feed:
    """A sink's end of the stream, and its thread."""

    def __init__(self, sink: LiveSink, source: Fanout[Any], passed: Passed, warn: Warn) -> None:
        self._sink, self._source, self._passed, self._warn = sink, source, passed, warn
        self._reader = source.reader(sink.capacity, sink.place)
        self._phase: Phase = "connecting"
        self._detail, self._told = "", ("", "")
        self._thread = threading.Thread(target=self._run, name=f"worldrt-{sink.place}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> SinkState:
        """Of this moment."""
        return SinkState(self._sink.place, self._phase, self._detail, self._reader.taken, self._reader.dropped)

    def __iter__(self) -> Iterator[Any]:
        return self._reader

    def pause(self, duration_s: float) -> bool:
        """Take nothing for a while; what comes is dropped. False where the stream ended meanwhile."""
        return self._reader.pause(duration_s)

    def want_key(self) -> None:
        """Someone behind the sink cannot go on without a key."""
        self._source.want_key()

    def sent(self, item: AccessUnit | LiveFrame, now_s: float) -> None:
        """An item has left; `now_s` is monotonic."""
        self._passed(self._sink.place, item.stamps.at(sent=now_s))

    def phase(self, phase: Phase, detail: str = "", reason: str = "") -> None:
        """Change the state. It is told once for each change of phase or `reason`, however the detail changes."""
        self._phase, self._detail = phase, detail or reason
        if phase != "connecting" and self._told != (phase, reason):
            self._told = phase, reason
            self._warn(str(self.state))

    def end(self, timeout_s: float) -> bool:
        """End this sink while the stream goes on; what waits for it is dropped. Whether it is through."""
        self._reader.close()
        return self.join(timeout_s)

    def join(self, timeout_s: float) -> bool:
        """Whether the sink is through with what waited when the stream ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._sink.run(self)
        except WorldrtError as error:
            self.phase("failed", reason=str(error))
        except Exception as error:  # of a callback, a library, a disk: all of them end this sink and nothing else
            self.phase("failed", reason=f"{type(error).__name__}: {error}")
        else:
            self.phase("ended")
        finally:
            self._reader.close()
