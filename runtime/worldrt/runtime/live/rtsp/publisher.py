"""The other end: publishes a stream to a server (ANNOUNCE, SETUP, RECORD over TCP).

Not FFmpeg's, whose bindings hold the interpreter's lock while they connect and disconnect: a server that hangs would
stop the world.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from worldrt.runtime.live.encode import AccessUnit
from worldrt.runtime.live.rtsp.authentication import authorization
from worldrt.runtime.live.rtsp.rtp import LiveTime, Packetizer, describe, numbered
from worldrt.runtime.live.rtsp.wire import interleaved

DEFAULT_PORT = 554
ALIVE_S = 20.0  # how often the server is told that the session lives; the usual limit is 60 s
HEAD_BYTES = 16 * 1024


class RefusedError(OSError):
    """The server answers, but not with what was asked for."""


class Publisher:
    """A connection that records. Every call ends within about `timeout_s`, or raises `OSError`."""

    def __init__(self, url: str, first: AccessUnit, timeout_s: float) -> None:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        self._user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        self._url = f"rtsp://{host}" + (f":{parts.port}" if parts.port else "") + parts.path
        self._count, self._challenge, self._headers = 0, "", {"User-Agent": "worldrt"}
        self._timeout_s, self._packetize, self._time, self._number = timeout_s, Packetizer(), LiveTime(), 0
        sdp = describe(first.data)
        if sdp is None:
            raise ValueError("first: expected a key with parameter sets")
        self._socket = socket.create_connection((parts.hostname, parts.port or DEFAULT_PORT), timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._record(sdp)
        except BaseException:
            self._socket.close()
            raise
        self._told_s = time.monotonic()

    def send(self, unit: AccessUnit) -> None:
        """All packets of a picture."""
        self._drain()
        if time.monotonic() - self._told_s > ALIVE_S:
            self._told_s = time.monotonic()
            self._write("OPTIONS", self._url, {})
        at = self._time.of(unit.pts, time.monotonic())
        packets = numbered(self._packetize(unit.data, at).packets, self._number)
        self._number = (self._number + len(packets)) & 0xFFFF
        self._socket.sendall(b"".join(interleaved(0, packet) for packet in packets))

    def close(self) -> None:
        """Say goodbye, if the server still listens."""
        try:
            self._socket.settimeout(0.2)
            self._write("TEARDOWN", self._url, {})
        except OSError:
            pass
        finally:
            self._socket.close()

    def _record(self, sdp: bytes) -> None:
        self._ask("ANNOUNCE", self._url, {"Content-Type": "application/sdp"}, sdp)
        transport = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"}
        answer = self._ask("SETUP", f"{self._url.rstrip('/')}/trackID=0", transport)
        self._headers["Session"] = answer.get("session", "").partition(";")[0]
        self._ask("RECORD", self._url, {"Range": "npt=0.000-"})

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> dict[str, str]:
        """The headers of the answer. Raises `RefusedError` for any other than 200."""
        self._write(method, url, headers, body)
        status, answer = self._answer()
        if status == 401 and self._user is not None and not self._challenge:
            self._challenge = answer.get("www-authenticate", "")
            self._write(method, url, headers, body)
            status, answer = self._answer()
        if status != 200:
            raise RefusedError(0, f"the server answers {method} with {status}")
        return answer

    def _write(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        self._count += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._count}"]
        lines += [f"{name}: {value}" for name, value in (self._headers | dict(headers)).items()]
        if self._user is not None and self._challenge:
            lines.append(f"Authorization: {authorization(self._challenge, *self._user, method, url)}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def _answer(self) -> tuple[int, dict[str, str]]:
        head = b""
        until_s = time.monotonic() + self._timeout_s
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: a few hundred, once, and nothing is read too far
            byte = self._socket.recv(1)
            if not byte:
                raise ConnectionResetError(0, "the server closed the connection")
            if len(head) > HEAD_BYTES or time.monotonic() > until_s:
                raise RefusedError(0, "the server's answer does not end")
            head += byte
        first, *lines = head.decode("utf-8", "replace").strip().split("\r\n")
        words = first.split(" ")
        if not words[0].startswith("RTSP/") or len(words) < 2 or not words[1].isdecimal():
            raise RefusedError(0, "what answers is no RTSP server")
        # of several offers to authenticate the last one, as a rule Digest's, is kept
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(words[1]), headers

    def _drain(self) -> None:
        """Reports and answers that came meanwhile are not read; that the server has gone is seen."""
        while select.select([self._socket], [], [], 0)[0]:
            if not self._socket.recv(65536):
                raise ConnectionResetError(0, "the server closed the connection")
