"""A server from its first socket to its last."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.parallel.control import Control
from worldrt.runtime.serve.hub import Hub
from worldrt.runtime.serve.routes import make_app

CLOSE_S = 3.0


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything heavy is loaded; port 0 takes a free one. Raises `InputError` for a host
    that is none of this machine's, and `OutputError` where the port cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: no such address: {getattr(error, 'strerror', None) or error}") from error
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise OutputError(
                f"--port {port}: another program uses it already; give another, or 0 for any that is free"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(f"--host {host}: it is no address of this machine") from None
        raise OutputError(f"--port {port}: cannot be used: {error.strerror}; give one above 1023") from None
    made.listen(128)
    made.setblocking(False)
    return made


def serve(
    make_hub: Callable[[], Hub],
    listening: socket.socket,
    told: Callable[[Hub], None] = lambda hub: None,
    tls: ssl.SSLContext | None = None,
    ranks: Control | None = None,
) -> Hub:
    """Serve until Ctrl-C or SIGTERM; the hub, ended. `told` is called when viewers may come. Raises what loading the
    world raised, and `RankError` once one of the `ranks` that make the world is lost."""
    hub = asyncio.run(_serve(make_hub, listening, told, tls))
    if ranks is not None:
        ranks.check()
    return hub


async def _serve(
    make_hub: Callable[[], Hub], listening: socket.socket, told: Callable[[Hub], None], tls: ssl.SSLContext | None
) -> Hub:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the last one tells of a rank that is lost
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread, or not here
            loop.add_signal_handler(number, stop.set)
            signals.append(number)
    hub = make_hub()
    async with serving(hub, listening, tls):
        told(hub)
        stopping, loaded = asyncio.ensure_future(stop.wait()), asyncio.wrap_future(hub.host.loaded)
        try:
            await asyncio.wait((stopping, loaded), return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                loaded.result()
                await stopping
        finally:
            for number in signals:
                loop.remove_signal_handler(number)  # a second Ctrl-C does not wait
    return hub


@asynccontextmanager
async def serving(hub: Hub, listening: socket.socket, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """A block in which viewers may come. The world begins to load with it, and ends with it."""
    from aiohttp import web

    runner = web.AppRunner(make_app(hub), access_log=None, shutdown_timeout=CLOSE_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, ssl_context=tls).start()
        hub.begin()
        yield
    finally:
        try:
            await hub.end()
        finally:
            await runner.cleanup()
