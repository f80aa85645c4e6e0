"""H.264 in RTP (RFC 3550, RFC 6184) and what SDP says of it."""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worldrt.runtime.live.encode import CLOCK_HZ

PAYLOAD_TYPE = 96
PAYLOAD_BYTES = 1400  # fits into an Ethernet frame with all its headers
SLACK_S = 0.1  # a picture may come so much earlier or later than it is due
BURST_BYTES = 8 << 20
IDR, SPS, PPS, STAP_A, FU_A = 5, 7, 8, 24, 28
_START = re.compile(rb"\x00\x00\x00?\x01")


@dataclass(frozen=True)
class Burst:
    """The packets of one picture; sequence numbers are the player's own and are set when it is sent."""

    packets: tuple[bytes, ...]
    key: bool


def numbered(packets: Sequence[bytes], first: int) -> list[bytes]:
    """Packets with their sequence numbers, from `first` on."""
    return [packet[:2] + ((first + i) & 0xFFFF).to_bytes(2, "big") + packet[4:] for i, packet in enumerate(packets)]


class LiveTime:
    """RTP times of pictures: the stream's own, which are even, as long as it keeps pace with the clock; where a world
    is slower (or makes up for it) than it says, the clock's. Players who trust them would else buffer more and more."""

    def __init__(self) -> None:
        self._offset: int | None = None
        self._last = -1

    def of(self, pts: int, now_s: float) -> int:
        """Always rising; `now_s` is monotonic."""
        now = round(now_s * CLOCK_HZ)
        if self._offset is None or abs(pts + self._offset - now) > SLACK_S * CLOCK_HZ:
            self._offset = now - pts
        self._last = max(self._last + 1, pts + self._offset)
        return self._last


class Packetizer:
    """Makes bursts of access units, of one RTP source."""

    def __init__(self) -> None:
        self._source = secrets.token_bytes(4)

    def __call__(self, data: bytes, pts: int) -> Burst:
        """`data` is Annex B, `pts` ticks of 90 kHz."""
        units = nal_units(data)
        payloads = [payload for unit in units for payload in _payloads(unit)]
        time = (pts & 0xFFFFFFFF).to_bytes(4, "big")
        last = len(payloads) - 1
        packets = (
            bytes((0x80, PAYLOAD_TYPE | 0x80 * (i == last))) + b"\0\0" + time + self._source + payload
            for i, payload in enumerate(payloads)
        )
        return Burst(tuple(packets), any(unit[0] & 31 == IDR for unit in units))


def nal_units(data: bytes) -> list[bytes]:
    """The units of an Annex B stream, without their start codes."""
    return [unit for unit in _START.split(data) if unit]


def _payloads(unit: bytes) -> Iterator[bytes]:
    """A unit as it is, or in fragments (FU-A)."""
    if len(unit) <= PAYLOAD_BYTES:
        yield unit
        return
    indicator, kind = unit[0] & 0xE0 | FU_A, unit[0] & 31
    parts = range(1, len(unit), PAYLOAD_BYTES - 2)
    for begin in parts:
        edge = 0x80 * (begin == 1) | 0x40 * (begin == parts[-1])
        yield bytes((indicator, edge | kind)) + unit[begin : begin + PAYLOAD_BYTES - 2]


class Collector:
    """Puts a publisher's packets together to bursts: a picture ends with the marker bit."""

    def __init__(self, h264: bool) -> None:
        self._h264, self._packets, self._bytes = h264, list[bytes](), 0

    def __call__(self, packet: bytes) -> Burst | None:
        """The burst that a packet completes. Packets that are no RTP are ignored."""
        if len(packet) < 13 or packet[0] >> 6 != 2:
            return None
        self._packets.append(packet)
        self._bytes += len(packet)
        if not packet[1] & 0x80 and self._bytes < BURST_BYTES:
            return None
        packets, self._packets, self._bytes = tuple(self._packets), [], 0
        return Burst(packets, not self._h264 or any(IDR in _kinds(packet) for packet in packets))


def _kinds(packet: bytes) -> set[int]:
    """The types of the units of which something is in a packet."""
    begin = 12 + 4 * (packet[0] & 15)
    if packet[0] & 0x10:  # an extension of the header
        begin += 4 + 4 * int.from_bytes(packet[begin + 2 : begin + 4], "big")
    payload = packet[begin:]
    kind = payload[0] & 31 if payload else 0
    if kind == FU_A and len(payload) > 1:
        return {payload[1] & 31}
    if kind != STAP_A:
        return {kind}
    kinds, place = set(), 1
    while place + 2 < len(payload):
        kinds.add(payload[place + 2] & 31)
        place += 2 + int.from_bytes(payload[place : place + 2], "big")
    return kinds


def describe(key: bytes) -> bytes | None:
    """The SDP of a stream that begins with an access unit; None where it has no parameter sets."""
    sets = {unit[0] & 31: unit for unit in nal_units(key) if unit[0] & 31 in (SPS, PPS)}
    if len(sets) < 2 or len(sets[SPS]) < 4:
        return None
    sprop = ",".join(b64encode(sets[kind]).decode() for kind in (SPS, PPS))
    lines = [
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=world",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
        f"a=rtpmap:{PAYLOAD_TYPE} H264/90000",
        f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;profile-level-id={sets[SPS][1:4].hex()};"
        f"sprop-parameter-sets={sprop}",
        "a=control:trackID=0",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def published(sdp: bytes) -> tuple[bytes, bool] | None:
    """A publisher's SDP as players get it, and whether it is H.264; None unless it has just one stream, of video."""
    lines = sdp.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n").split("\n")
    media = [index for index, line in enumerate(lines) if line.startswith("m=")]
    if len(media) != 1 or not lines[media[0]].startswith("m=video "):
        return None
    words = lines[media[0]].split(" ")
    kept = [line for line in lines if not line.startswith("a=control:")]
    kept = [" ".join([words[0], "0", *words[2:]]) if line.startswith("m=") else line for line in kept]
    h264 = any(re.match(r"a=rtpmap:\d+ H264/90000", line, re.IGNORECASE) for line in lines)
    return "".join(f"{line}\r\n" for line in [*kept, "a=control:trackID=0"]).encode(), h264
