"""A server of our own, for players without one between: `rtsp-serve://127.0.0.1:8554/live`."""

from __future__ import annotations

import ipaddress
import time
from urllib.parse import unquote, urlsplit

from worldrt.engine.errors import InputError
from worldrt.runtime.live.rtsp.connection import Access
from worldrt.runtime.live.rtsp.relay import Relay
from worldrt.runtime.live.sinks.base import Feed, Takes
from worldrt.runtime.live.sinks.rtsp import shown
from worldrt.runtime.sinks.base import VideoFormat

CAPACITY = 16
DEFAULT_PORT, DEFAULT_PATH = 8554, "live"
GRACE_S = 1.0


def open_live(place: str, video: VideoFormat, *, overwrite: bool) -> RtspServer:
    """Listens from now on. Beyond this machine players need the URL's user and password. Raises `InputError`, or
    `OutputError` where the port is taken."""
    name, parts = shown(place), urlsplit(place)
    host = str(parts.hostname)
    if parts.username is None and not _loopback(host):
        raise InputError(f"{name}: others can reach {host}; give a user and a password: rtsp-serve://USER:PASSWORD@...")
    credentials = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    port = DEFAULT_PORT if parts.port is None else parts.port
    return RtspServer(Relay(host, port, Access(credentials, publish=False)), unquote(parts.path).strip("/"))


class RtspServer:
    """The stream at one path."""

    takes: Takes = "units"
    capacity = CAPACITY

    def __init__(self, relay: Relay, path: str) -> None:
        self._relay, self._path = relay, path or DEFAULT_PATH
        host = f"[{relay.host}]" if ":" in relay.host else relay.host
        self.place = f"rtsp-serve://{host}:{relay.port}/{self._path}"

    def abandon(self) -> None:
        """Free the port."""
        self._relay.close()

    def run(self, feed: Feed) -> None:
        stream = self._relay.stream(self._path, feed.want_key)
        players = -1
        try:
            for unit in feed:
                stream.send(unit)
                feed.sent(unit, time.monotonic())
                if len(stream.bursts.readers) != players:
                    players = len(stream.bursts.readers)
                    feed.phase("sending", f"{players} watching")
        finally:
            self._relay.paths.remove(self._path, stream)
            self._relay.close(GRACE_S)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
