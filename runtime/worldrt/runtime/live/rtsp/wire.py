"""RTSP messages and interleaved packets on a TCP connection (RFC 2326, sections 4, 6, 7 and 10.12)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

HEAD_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    415: "Unsupported Media Type",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    503: "Service Unavailable",
}


class ProtocolError(Exception):
    """What came is no RTSP, or too much of it."""


@dataclass(frozen=True)
class Request:
    """A request; the names of `headers` are in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path of the URL without slashes around it."""
        try:
            return unquote(urlsplit(self.url).path).strip("/")
        except ValueError as error:
            raise ProtocolError("a URL that cannot be read") from error


@dataclass(frozen=True)
class Interleaved:
    """A packet of RTP or RTCP between requests."""

    channel: int
    data: bytes


async def read(stream: asyncio.StreamReader) -> Request | Interleaved | None:
    """What comes next, None at the end of the connection. Raises `ProtocolError`. The stream's limit must not be below
    `HEAD_BYTES`."""
    try:
        first = await stream.readexactly(1)
        if first == b"$":
            channel, high, low = await stream.readexactly(3)
            return Interleaved(channel, await stream.readexactly(high << 8 | low))
        head = first + await stream.readuntil(b"\r\n\r\n")
        return await _request(head.decode("utf-8", "replace").strip("\r\n").split("\r\n"), stream)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return None
    except asyncio.LimitOverrunError as error:
        raise ProtocolError("a head that does not end") from error


async def _request(lines: list[str], stream: asyncio.StreamReader) -> Request:
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("RTSP/1."):
        raise ProtocolError("no RTSP")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and int(length) <= BODY_BYTES):
        raise ProtocolError("a body of a wrong size")
    return Request(words[0], words[1], headers, await stream.readexactly(int(length)))


def response(code: int, request: Request | None, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of an answer."""
    number = request.headers.get("cseq", "0") if request is not None else "0"
    lines = [f"RTSP/1.0 {code} {REASONS[code]}", f"CSeq: {number}", *(f"{k}: {v}" for k, v in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def interleaved(channel: int, data: bytes) -> bytes:
    """A packet as it lies between messages."""
    return b"$" + bytes((channel,)) + len(data).to_bytes(2, "big") + data


def transport(text: str) -> tuple[bool, dict[str, str]]:
    """A Transport header: whether it is TCP, and its parameters. Of several offers, the first counts."""
    profile, *parameters = text.split(",")[0].split(";")
    pairs = (parameter.strip().partition("=") for parameter in parameters)
    return profile.strip().upper() == "RTP/AVP/TCP", {name.lower(): value.strip('"') for name, _, value in pairs}


def port_pair(text: str) -> tuple[int, int] | None:
    """`8000-8001`, or `8000`, which stands for the same."""
    first, dash, second = text.partition("-")
    if not (first.isascii() and first.isdigit() and (not dash or (second.isascii() and second.isdigit()))):
        return None
    pair = int(first), int(second) if dash else int(first) + 1
    return pair if max(pair) < 65536 else None
