"""Messages between the processes of a run: a JSON object and arrays, over one TCP connection."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from worldrt.engine.errors import BackendError

Arrays = Mapping[str, np.ndarray[Any, Any]]
Message = dict[str, Any]
_SIZE = struct.Struct("!I")
_MOST_HEADER = 1 << 24
_MOST_ARRAY = 1 << 40
_DTYPES = ("float32", "float64", "uint8", "int64")


class Wire:
    """A connection on which one thread reads and any thread writes. Both ends are processes of one run."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def own_host(self) -> str:
        """The address of this end, as the other one sees it."""
        return str(self._socket.getsockname()[0])

    def send(self, message: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Raises `OSError` where the connection is gone."""
        parts = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
        shapes = [[name, part.dtype.name, list(part.shape)] for name, part in parts.items()]
        header = json.dumps({"message": message, "arrays": shapes}).encode()
        with self._sending:
            self._socket.sendall(_SIZE.pack(len(header)) + header)
            for part in parts.values():
                self._socket.sendall(part.reshape(-1).view(np.uint8).data)

    def receive(self, most_header: int = _MOST_HEADER) -> tuple[Message, dict[str, np.ndarray[Any, Any]]]:
        """The next message. Raises `EOFError` at the end, `OSError`, and `BackendError` for what is no message."""
        (size,) = _SIZE.unpack(self._bytes(_SIZE.size))
        if size > most_header:
            raise BackendError(f"a message of {size} bytes from another process, of at most {most_header}")
        try:
            data = json.loads(bytes(self._bytes(size)))
            message, shapes = data["message"], data["arrays"]
            arrays = {name: self._array(dtype, tuple(shape)) for name, dtype, shape in shapes}
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(f"another process sent what is no message: {error}") from error
        return message, arrays

    def _array(self, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if dtype not in _DTYPES or any(size < 0 for size in shape) or int(np.prod(shape, dtype=float)) > _MOST_ARRAY:
            raise ValueError(f"no array: {dtype[:40]}{shape}")
        array = np.empty(shape, dtype)
        self._fill(memoryview(array.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]  # numpy has the buffer protocol
        return array

    def _bytes(self, size: int) -> bytearray:
        made = bytearray(size)
        self._fill(memoryview(made))
        return made

    def _fill(self, view: memoryview) -> None:
        while len(view):
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError("the other process has closed the connection")
            view = view[count:]

    def finish(self) -> None:
        """Say that there is no more to come; the other end can still send."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection; a thread that reads it is woken."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
