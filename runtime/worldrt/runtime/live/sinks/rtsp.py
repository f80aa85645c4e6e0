"""RTSP push: publishes to a server such as mediamtx, and comes back when it was gone (`rtsp://HOST:PORT/PATH`)."""

from __future__ import annotations

import random
import time
from itertools import chain
from urllib.parse import urlsplit

from worldrt.engine.errors import InputError
from worldrt.runtime.live.rtsp.publisher import Publisher
from worldrt.runtime.live.sinks.base import Feed, Takes
from worldrt.runtime.sinks.base import VideoFormat

CAPACITY = 32
TIMEOUT_S = 2.0  # of a server that hangs
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


def open_live(place: str, video: VideoFormat, *, overwrite: bool) -> RtspPush:
    """Whether a server is there shows only while the world runs: it may come later. Raises `InputError`."""
    return RtspPush(place)


def shown(url: str) -> str:
    """A URL without what may be secret. Raises `InputError` where it names no host."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        raise InputError("rtsp: a URL that cannot be read; expected rtsp://HOST:PORT/PATH") from None
    if not parts.hostname:
        raise InputError(f"{parts.scheme}: expected {parts.scheme}://HOST:PORT/PATH, got no host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path}"


class RtspPush:
    """The publisher. After each failure it waits longer, with jitter, and then goes on with a key."""

    takes: Takes = "units"
    capacity = CAPACITY

    def __init__(
        self, url: str, *, first_pause_s: float = FIRST_PAUSE_S, longest_pause_s: float = LONGEST_PAUSE_S
    ) -> None:
        self.place, self._url = shown(url), url
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._pause_s = first_pause_s

    def abandon(self) -> None:
        """Nothing was opened."""

    def run(self, feed: Feed) -> None:
        while True:
            feed.phase("connecting")
            try:
                return self._send(feed)
            except OSError as error:
                reason = error.strerror or str(error) or type(error).__name__
            pause_s = self._pause_s * random.uniform(0.5, 1.0)  # so that many publishers do not come back at once
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            feed.phase("waiting", f"{pause_s:.1f} s ({reason})", reason)
            if not feed.pause(pause_s):
                return

    def _send(self, feed: Feed) -> None:
        """Until the stream ends. Raises what the connection raises."""
        first = next(iter(feed), None)
        if first is None:
            return
        publisher = Publisher(self._url, first, TIMEOUT_S)
        feed.phase("sending")
        try:
            for unit in chain([first], feed):
                publisher.send(unit)
                feed.sent(unit, time.monotonic())
                self._pause_s = self._first_pause_s
        finally:
            publisher.close()
