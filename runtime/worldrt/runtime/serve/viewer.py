"""One who looks on: a WebSocket, the pictures that go out on it, and the messages that come in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from worldrt.runtime.serve.broadcast import Kind
from worldrt.runtime.serve.commands import Refused
from worldrt.runtime.serve.hub import Hub
from worldrt.runtime.serve.limits import Bucket
from worldrt.runtime.serve.messages import H264, JPEG, MOST_BYTES, Sequences, packed, parse

if TYPE_CHECKING:
    from aiohttp import web

HELLO_S = 10.0
HEARTBEAT_S = 15.0
COMMANDS_PER_S, COMMANDS_BURST = 10.0, 20.0
MOST_GARBAGE = 20
BREATHE_EVERY = 32
MESSAGES_PER_S, MESSAGES_BURST = 200.0, 400.0
FLOOD_WAIT_S = 0.01
STATE_EVERY_S = 1.0
POLICY, BAD_TOKEN, FULL = 1008, 4401, 4503


class Viewer:
    """Serves one socket until either side ends it."""

    def __init__(self, hub: Hub, socket: web.WebSocketResponse, *, authorized: bool) -> None:
        self.name, self.changed = hub.new_name(), asyncio.Event()
        self._hub, self._socket, self._authorized = hub, socket, authorized
        self._sequences = Sequences()
        self._bucket = Bucket(COMMANDS_PER_S, COMMANDS_BURST)
        self._messages, self._tells = Bucket(MESSAGES_PER_S, MESSAGES_BURST), Bucket(1.0, 1.0)
        self._heard = self._garbage = 0
        self._control: dict[str, Any] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Say hello, and then send and listen at once."""
        kind = await self._hello()
        if kind is None:
            return
        self._hub.join(self)
        tasks = [asyncio.create_task(work) for work in (self._listen(), self._send_states(), self._send_pictures(kind))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in [*tasks, *self._answers]:
                task.cancel()
            ended = await asyncio.gather(*tasks, *self._answers, return_exceptions=True)
            self._hub.leave(self)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(
                error, (ConnectionError, TimeoutError, asyncio.TimeoutError)
            ):
                raise error

    async def close(self, code: int, text: str) -> None:
        """End the conversation."""
        await self._socket.close(code=code, message=text.encode()[:120])

    async def _hello(self) -> Kind | None:
        """The kind of pictures that the viewer wants; None where it was sent away."""
        try:
            message = parse(await asyncio.wait_for(self._socket.receive_str(), HELLO_S))
        except (ValueError, TypeError, asyncio.TimeoutError):
            self._hub.metrics.refused.labels("hello").inc()
            await self.close(POLICY, "expected a message of type hello")
            return None
        token = message.get("token")
        if not self._authorized and not self._hub.access.token_is(token if isinstance(token, str) else None):
            self._hub.metrics.refused.labels("token").inc()
            await self.close(BAD_TOKEN, "the token is missing or wrong")
            return None
        if message["type"] != "hello" or message.get("video") not in ("h264", "jpeg"):
            await self.close(POLICY, "expected hello, with video: h264 or jpeg")
            return None
        if self._hub.full:
            self._hub.metrics.refused.labels("full").inc()
            await self.close(FULL, "too many viewers")
            return None
        return "h264" if message["video"] == "h264" else "jpeg"

    async def _send_pictures(self, kind: Kind) -> None:
        await self._hub.ready.wait()
        metrics, dropped, number = self._hub.metrics, 0, H264 if kind == "h264" else JPEG
        with self._hub.broadcast.reader(kind, self.name) as reader:
            async for item in reader:
                answered = self._sequences.answered(item.stamps.control)
                await self._socket.send_bytes(packed(number, item.key, answered, item.pts, item.data))
                metrics.was_sent(item.stamps)
                metrics.dropped.inc(reader.dropped - dropped)
                dropped = reader.dropped
        await asyncio.Event().wait()  # the encoder has failed, and the state says so

    async def _send_states(self) -> None:
        while True:
            self.changed.clear()
            await self._socket.send_json(self._hub.state_for(self.name))
            try:
                await asyncio.wait_for(self.changed.wait(), STATE_EVERY_S)
                await asyncio.sleep(0.03)  # what changes at once is told at once
            except asyncio.TimeoutError:
                pass

    async def _listen(self) -> None:
        async for text in _texts(self._socket):
            await self._breathe()
            try:
                if text is None:
                    raise ValueError("expected text")
                message = parse(text)
            except ValueError:
                self._hub.metrics.garbage.inc()
                self._garbage += 1
                if self._garbage > MOST_GARBAGE:
                    return await self.close(POLICY, "too many messages that could not be understood")
                continue
            self._take(message)

    async def _breathe(self) -> None:
        """Let others have their turn. Who sends too much is told, and read so slowly that the rest waits with him."""
        self._heard += 1
        floods = not self._messages.take()
        if floods:
            self._hub.metrics.flooded.inc()
        if self._heard % BREATHE_EVERY:
            return
        await asyncio.sleep(FLOOD_WAIT_S * self._hub.flooding(self.name) if floods else 0)
        if floods and self._tells.take():
            text = f"too many messages: more than {MESSAGES_PER_S:.0f} a second are read slowly"
            self._answer({}, {"type": "error", "text": text, "status": 429})

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "control":
            self._take_control(message)
        elif not self._bucket.take():
            self._answer(message, {"type": "error", "text": "too many requests; wait a moment", "status": 429})
        elif message["type"] == "key":
            self._hub.broadcast.want_key()
        elif message["type"] == "wheel":
            self._hub.take_wheel(self.name) if message.get("take") is True else self._hub.leave_wheel(self.name)
        else:
            self._start(self._perform(message))

    def _take_control(self, message: dict[str, Any]) -> None:
        """Keep the newest; it is handed over when the loop comes round."""
        self._hub.metrics.controls.inc()
        if self._control is not None:
            self._hub.metrics.coalesced.inc()
        else:
            asyncio.get_running_loop().call_soon(self._steer)
        self._control = message

    def _steer(self) -> None:
        message, self._control = self._control, None
        if message is None or not self._hub.wheel.holds(self.name):
            return
        sequence = message.get("seq")
        try:
            control = self._hub.commands.control_in(message)
        except Refused:
            self._hub.metrics.garbage.inc()
            return
        if type(sequence) is int and sequence > 0:
            self._sequences.sent(time.monotonic(), sequence)
        self._hub.host.control(control)

    async def _perform(self, message: dict[str, Any]) -> None:
        try:
            answer = {"type": "done"} | await self._hub.commands.perform(message["type"], message, self.name)
        except Refused as refused:
            answer = {"type": "error", "text": str(refused), "status": refused.status}
        await self._send_answer(message, answer)

    def _answer(self, message: dict[str, Any], answer: dict[str, Any]) -> None:
        if len(self._answers) < COMMANDS_BURST:
            self._start(self._send_answer(message, answer))

    async def _send_answer(self, message: dict[str, Any], answer: dict[str, Any]) -> None:
        number = message.get("id")
        if type(number) is int:
            answer = answer | {"id": number}
        with suppress(ConnectionError):  # who is gone needs no answer
            await self._socket.send_json(answer)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)


async def _texts(socket: web.WebSocketResponse) -> AsyncIterator[str | None]:
    """The texts that come in, None for other data, until the socket is closed."""
    from aiohttp import WSMsgType

    async for message in socket:
        if message.type == WSMsgType.TEXT:
            yield message.data
        elif message.type == WSMsgType.BINARY:
            yield None


def make_socket() -> web.WebSocketResponse:
    """A socket that refuses what is too large, and notices who is gone."""
    from aiohttp import web

    return web.WebSocketResponse(max_msg_size=MOST_BYTES, heartbeat=HEARTBEAT_S, compress=False, timeout=2.0)
