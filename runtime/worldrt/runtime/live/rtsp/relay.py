"""The server in a thread of its own.

with Relay(port=8554) as relay:
    stream = relay.stream("live", want_key=encoder.request_key)
    stream.send(encoder.encode(frame))          # ffplay rtsp://127.0.0.1:8554/live
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from worldrt.engine.errors import InputError, OutputError
from worldrt.runtime.live.rtsp.connection import Access, Client
from worldrt.runtime.live.rtsp.paths import Paths, Stream
from worldrt.runtime.live.rtsp.wire import HEAD_BYTES

CLIENTS = 64


class Relay:
    """Listens from its making to `close`. Anyone who reaches `host` may play and, with `access.publish`, publish.

    Raises `OutputError` where the address cannot be had. `port` 0 takes a free one; `port` says which.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8554, access: Access | None = None) -> None:
        self.host, self._access, self.paths = host, access or Access(), Paths()
        self._socket = _listening(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._loop, self._ending = asyncio.new_event_loop(), asyncio.Event()
        self._clients: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"worldrt-rtsp-{self.port}", daemon=True)
        self._thread.start()

    def stream(self, path: str, want_key: Callable[[], None]) -> Stream:
        """A stream of this process. Raises `InputError` where the path has a source already."""
        stream = Stream(want_key=want_key)
        if not self.paths.add(path, stream):
            raise InputError(f"rtsp path '{path}': there is a source already; give another path")
        return stream

    def close(self, grace_s: float = 0.0) -> None:
        """Let everyone go and free the port. Players of a stream that has ended get `grace_s` to take what waits."""
        until_s = time.monotonic() + grace_s
        while self._clients and time.monotonic() < until_s:
            time.sleep(0.01)
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._socket, limit=HEAD_BYTES)
        await self._ending.wait()
        server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._clients) >= CLIENTS:
            writer.close()
            return
        self._clients.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):  # cancelled by `_listen`, who waits for it
                await Client(self.paths, self._access, reader, writer).serve()
        finally:
            self._clients.discard(task)

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"rtsp-serve: cannot listen on {host}:{port}: {why}; give another port or host") from error
