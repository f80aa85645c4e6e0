"""The streams of a server by path: one source, any number of players."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from worldrt.runtime.live.encode import AccessUnit
from worldrt.runtime.live.fanout import Fanout
from worldrt.runtime.live.rtsp.rtp import Burst, LiveTime, Packetizer, describe

SDP_WAIT_S = 5.0


class Stream:
    """What one source sends. From any thread."""

    def __init__(self, sdp: bytes | None = None, want_key: Callable[[], None] = lambda: None) -> None:
        self.sdp = sdp
        self.bursts: Fanout[Burst] = Fanout(is_key=lambda burst: burst.key, want_key=want_key)
        self._packetize, self._time = Packetizer(), LiveTime()

    def send(self, unit: AccessUnit) -> None:
        """Give a picture to whoever plays."""
        if unit.key:
            self.sdp = describe(unit.data) or self.sdp
        self.bursts.put(self._packetize(unit.data, self._time.of(unit.pts, time.monotonic())))

    async def described(self) -> bytes | None:
        """The SDP; waits a while where no key has come yet."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + SDP_WAIT_S
        while self.sdp is None and loop.time() < until_s:
            await asyncio.sleep(0.02)
        return self.sdp


class Paths:
    """Which stream is where."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: dict[str, Stream] = {}

    def get(self, path: str) -> Stream | None:
        """The stream of a path."""
        return self._streams.get(path)

    def add(self, path: str, stream: Stream) -> bool:
        """False where the path has a source already."""
        with self._lock:
            return self._streams.setdefault(path, stream) is stream

    def remove(self, path: str, stream: Stream) -> None:
        """The source has gone: players get what waits for them and are let go."""
        with self._lock:
            if self._streams.get(path) is stream:
                del self._streams[path]
        stream.bursts.close()
