"""A server of its own for a test, in the test's event loop or in a thread, and a client of its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import threading

import aiohttp

from worldrt.runtime.serve.hub import Hub
from worldrt.runtime.serve.run import bind, serving

from .toy import ToyWorld

HEADER = struct.Struct(">BBHIQ")


@contextlib.asynccontextmanager
async def served(tmp_path, world=None, port=0, **options):
    """The address and the hub of a server over a toy."""
    world = world or ToyWorld()
    hub = Hub(lambda: world, recordings=tmp_path / "recordings", prompt="a toy", **options)
    listening = bind("127.0.0.1", port)
    async with serving(hub, listening):
        await asyncio.wait_for(asyncio.wrap_future(hub.host.loaded), 120)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", hub


@contextlib.contextmanager
def served_in_thread(tmp_path, world=None, port=0, **options):
    """The same for a test that blocks."""
    started, stop, found = threading.Event(), asyncio.Event(), {}

    async def live():
        found["loop"] = asyncio.get_running_loop()
        async with served(tmp_path, world, port, **options) as (found["url"], found["hub"]):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    assert started.wait(150)
    try:
        yield found["url"], found["hub"]
    finally:
        found["loop"].call_soon_threadsafe(stop.set)
        thread.join(120)
        assert not thread.is_alive()


class Client:
    """One viewer."""

    def __init__(self, socket):
        self.socket = socket
        self.state = None
        self.answers = {}
        self.pictures = []  # (kind, key, sequence, time in us, data)

    async def send(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def until(self, wanted, timeout_s=60.0):
        """Read until `wanted()`."""

        async def read():
            while not wanted():
                message = await self.socket.receive()
                if message.type == aiohttp.WSMsgType.BINARY:
                    kind, key, _, sequence, time_us = HEADER.unpack_from(message.data)
                    self.pictures.append((kind, key, sequence, time_us, message.data[HEADER.size :]))
                elif message.type == aiohttp.WSMsgType.TEXT:
                    told = json.loads(message.data)
                    if told["type"] == "state":
                        self.state = told
                    else:
                        self.answers[told.get("id")] = told
                else:
                    raise ConnectionError(f"closed: {self.socket.close_code} {message.extra}")

        await asyncio.wait_for(read(), timeout_s)

    async def ask(self, number, **message):
        await self.send(id=number, **message)
        await self.until(lambda: number in self.answers)
        return self.answers[number]

    async def drive(self):
        await self.send(type="wheel", take=True)
        await self.until(lambda: self.state and self.state["wheel"] == "yours")


@contextlib.asynccontextmanager
async def viewer(url, video="h264", headers=None, hello=True, token=None):
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/ws", headers=headers or {}, max_msg_size=0) as socket,
    ):
        client = Client(socket)
        if hello:
            await client.send(type="hello", video=video, **({"token": token} if token else {}))
        yield client
