"""How the processes of a run find each other."""

from __future__ import annotations

import hmac
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from worldrt.engine.errors import BackendError, RankError
from worldrt.runtime.parallel.control import LOOPBACK
from worldrt.runtime.parallel.guest import Guest
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.pulse import LIMIT_S
from worldrt.runtime.parallel.wire import Wire

JOIN_S = 300.0
_HELLO_BYTES = 4096


class Meeting:
    """A place where rank 0 waits for the others. `secret` keeps strangers out; `port` is chosen by the system."""

    def __init__(self, size: int, secret: str, host: str = LOOPBACK) -> None:
        self._size, self.secret = size, secret
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=max(8, size))
        self.port = int(self._socket.getsockname()[1])

    def hold(
        self, *, limit_s: float = LIMIT_S, join_s: float = JOIN_S, alive: Callable[[], None] = lambda: None
    ) -> Host:
        """Wait for all. `alive` raises where one is known not to come. Raises `RankError` that names who is missing."""
        wires: dict[int, Wire] = {}
        end = time.monotonic() + join_s
        self._socket.settimeout(0.25)
        try:
            while len(wires) < self._size - 1:
                alive()
                if time.monotonic() > end:
                    absent = ", ".join(str(rank) for rank in range(1, self._size) if rank not in wires)
                    raise RankError(f"rank {absent}: it has not joined the run within {join_s:.0f} s")
                with suppress(TimeoutError):
                    self._admit(self._socket.accept()[0], wires)
        except BaseException:
            for wire in wires.values():
                wire.close()
            raise
        finally:
            self._socket.close()
        for wire in wires.values():
            wire.send({"kind": "welcome"})
        return Host([wires[rank] for rank in range(1, self._size)], limit_s=limit_s)

    def _admit(self, connection: socket.socket, wires: dict[int, Wire]) -> None:
        """Take a process in that knows the secret; others are let go without a word."""
        connection.settimeout(5)
        wire = Wire(connection)
        try:
            hello, _ = wire.receive(_HELLO_BYTES)
            known = hmac.compare_digest(str(hello.get("secret")).encode(), self.secret.encode())
            rank, size = int(hello["rank"]), int(hello["size"])
        except (OSError, EOFError, BackendError, ValueError, KeyError, TypeError):
            wire.close()
            return
        if not known:
            wire.close()
            return
        if size != self._size or not 0 < rank < size or rank in wires:
            wire.close()
            raise RankError(f"rank {rank} of {size} came to a run of {self._size}: start all with the same command")
        connection.settimeout(None)
        wires[rank] = wire


def join(rank: int, size: int, host: str, port: int, secret: str, *, limit_s: float = LIMIT_S) -> Guest:
    """Come to the meeting that rank 0 holds. Raises `RankError` where it is not held."""
    try:
        connection = socket.create_connection((host, port), timeout=30)
        wire = Wire(connection)
        wire.send({"kind": "hello", "rank": rank, "size": size, "secret": secret})
        connection.settimeout(JOIN_S)
        wire.receive()
    except (OSError, EOFError) as error:
        raise RankError(f"rank {rank}: rank 0 cannot be reached at {host}:{port}: {error}") from error
    connection.settimeout(None)
    return Guest(rank, size, wire, limit_s=limit_s)
