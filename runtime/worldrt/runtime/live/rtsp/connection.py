"""One client of the server: a player (TCP or UDP) or a publisher (TCP)."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from worldrt.runtime.live.fanout import EndOfStream, Reader
from worldrt.runtime.live.rtsp import rtp, wire
from worldrt.runtime.live.rtsp.authentication import is_allowed
from worldrt.runtime.live.rtsp.paths import Paths, Stream
from worldrt.runtime.live.rtsp.wire import Interleaved, ProtocolError, Request

PLAYER_BURSTS = 16
UNSENT_BYTES = 64 * 1024  # above that a player is slow, and its ring fills
STUCK_S = 10.0  # a player that takes nothing for so long is let go
IDLE_S = 10.0  # of a client that wants nothing yet
SESSION_S = 60  # what clients are told: over UDP they have to show that they live
METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER, SET_PARAMETER"
Send = Callable[[list[bytes]], None]
"""Sends the packets of a picture."""


@dataclass(frozen=True)
class Access:
    """Who may do what: `credentials` are `user:password`, or None where everyone may play; `publish` allows RECORD."""

    credentials: str | None = None
    publish: bool = True

    def allows(self, header: str) -> bool:
        """Whether an Authorization header will do."""
        return self.credentials is None or is_allowed(header, self.credentials)


@dataclass
class Client:
    """A connection, from its first request to its end."""

    paths: Paths
    access: Access
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    session: str = field(default_factory=lambda: secrets.token_hex(8))
    stream: Stream | None = None
    published: str | None = None
    recording: bool = False
    _collect: rtp.Collector | None = None
    _send: Send | None = None
    _udp: list[asyncio.DatagramTransport] = field(default_factory=list)
    _playing: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer until the client goes, or sends what is no RTSP. Leaves nothing behind."""
        try:
            self.writer.transport.set_write_buffer_limits(high=UNSENT_BYTES)
            # asyncio does it only for sockets that name their protocol; without it pictures wait for acknowledgements
            self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (message := await self._next()) is not None:
                if isinstance(message, Interleaved):
                    self._packet(message)
                elif not await self._answer(message):
                    break
        except ProtocolError:
            self.writer.write(wire.response(400, None, {}))
        finally:
            await self._end()

    async def _next(self) -> Request | Interleaved | None:
        """Raises `ProtocolError`; None where nothing more comes."""
        limit_s: float | None = IDLE_S if self._send is None else 1.5 * SESSION_S
        if self._playing is not None and not self._udp:
            limit_s = None  # a player by TCP has a limit of its own: `STUCK_S`
        try:
            return await asyncio.wait_for(wire.read(self.reader), limit_s)
        except asyncio.TimeoutError:
            return None

    def _packet(self, packet: Interleaved) -> None:
        if self.recording and packet.channel == 0 and self.stream is not None and self._collect is not None:
            burst = self._collect(packet.data)
            if burst is not None:
                self.stream.bursts.put(burst)

    async def _answer(self, request: Request) -> bool:
        """Whether the connection goes on."""
        code, headers, body = await self._handled(request)
        if request.method not in ("OPTIONS", "DESCRIBE", "ANNOUNCE") and code == 200:
            headers = {"Session": f"{self.session};timeout={SESSION_S}"} | headers
        if code == 401:
            headers = {"WWW-Authenticate": 'Basic realm="world"'}
        self.writer.write(wire.response(code, request, headers, body))
        if request.method == "PLAY" and code == 200 and self._playing is None:
            self._playing = asyncio.create_task(self._play())
        return request.method != "TEARDOWN"

    async def _handled(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        if request.method == "OPTIONS":
            return 200, {"Public": METHODS + (", ANNOUNCE, RECORD" if self.access.publish else "")}, b""
        if not self.access.allows(request.headers.get("authorization", "")):
            return 401, {}, b""
        if request.method == "DESCRIBE":
            return await self._describe(request)
        if request.method == "ANNOUNCE":
            return self._announce(request), {}, b""
        if request.method == "SETUP":
            return await self._set_up(request)
        if request.method == "PLAY":
            return (455 if self._send is None or self.published is not None else 200), {"Range": "npt=now-"}, b""
        if request.method == "RECORD":
            self.recording = self.published is not None and self._send is not None
            return (200 if self.recording else 455), {}, b""
        known = request.method in ("TEARDOWN", "GET_PARAMETER", "SET_PARAMETER")
        return (200, {}, b"") if known else (405, {"Allow": METHODS}, b"")

    async def _describe(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        stream = self.paths.get(request.path)
        sdp = None if stream is None else await stream.described()
        if sdp is None:
            return (404 if stream is None else 503), {}, b""
        return 200, {"Content-Type": "application/sdp", "Content-Base": request.url.rstrip("/") + "/"}, sdp

    def _announce(self, request: Request) -> int:
        if not self.access.publish:
            return 403
        if self.stream is not None:
            return 455
        given = rtp.published(request.body)
        if given is None:
            return 415
        sdp, h264 = given
        stream = Stream(sdp)
        if not self.paths.add(request.path, stream):
            return 403
        self.stream, self.published, self._collect = stream, request.path, rtp.Collector(h264)
        return 200

    async def _set_up(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        if self._send is not None:
            return 455, {}, b""
        tcp, parameters = wire.transport(request.headers.get("transport", ""))
        if self.published is None:
            self.stream = self.paths.get(request.path.rpartition("/trackID=")[0] or request.path)
            if self.stream is None:
                return 404, {}, b""
        if tcp:
            channels = wire.port_pair(parameters.get("interleaved", "0-1"))
            if channels is None or max(channels) > 255 or (self.published is not None and channels[0] != 0):
                return 461, {}, b""
            channel = channels[0]
            self._send = lambda packets: self.writer.write(b"".join(wire.interleaved(channel, p) for p in packets))
            told = f"RTP/AVP/TCP;unicast;interleaved={channels[0]}-{channels[1]}"
            return 200, {"Transport": told}, b""
        ports = wire.port_pair(parameters.get("client_port", ""))
        if self.published is not None or ports is None or "multicast" in parameters:
            return 461, {}, b""
        return 200, {"Transport": await self._set_up_udp(ports)}, b""

    async def _set_up_udp(self, ports: tuple[int, int]) -> str:
        """Only the address that the connection comes from is sent to."""
        here, there = self.writer.get_extra_info("sockname")[0], self.writer.get_extra_info("peername")[0]
        loop = asyncio.get_running_loop()
        for port in ports:
            made, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=(here, 0), remote_addr=(there, port)
            )
            self._udp.append(made)
        own = [made.get_extra_info("sockname")[1] for made in self._udp]
        self._send = partial(_send_each, self._udp[0])
        return f"RTP/AVP;unicast;client_port={ports[0]}-{ports[1]};server_port={own[0]}-{own[1]}"

    async def _play(self) -> None:
        """Send bursts as they come; ends the connection with the stream."""
        assert self.stream is not None and self._send is not None
        with self.stream.bursts.reader(PLAYER_BURSTS, self.session) as bursts, suppress(OSError):
            await self._send_all(bursts, self._send)
        self.writer.close()

    async def _send_all(self, bursts: Reader[rtp.Burst], send: Send) -> None:
        number = secrets.randbelow(1 << 16)
        with suppress(EndOfStream, asyncio.TimeoutError):
            while True:
                packets = (await bursts.next()).packets
                send(rtp.numbered(packets, number))
                number = (number + len(packets)) & 0xFFFF
                await asyncio.wait_for(self.writer.drain(), STUCK_S)

    async def _end(self) -> None:
        if self.published is not None and self.stream is not None:
            self.paths.remove(self.published, self.stream)
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)
        for transport in self._udp:
            transport.close()
        self.writer.close()
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 1.0)
        self.writer.transport.abort()  # what it did not take by now is lost


def _send_each(udp: asyncio.DatagramTransport, packets: list[bytes]) -> None:
    for packet in packets:
        udp.sendto(packet)
