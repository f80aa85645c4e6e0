"""Questions to a server by HTTP: each ends in time and in size, whatever the server does, and in one kind of error."""

from __future__ import annotations

import importlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from worldrt.engine.errors import BackendError

MOST_BYTES = 32 << 20  # of an answer
T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """An answer. `sends_on_to` is the address of a redirect, which is not followed; `wait_s` the pause that is asked
    for."""

    status: int
    text: str
    wait_s: float | None = None
    sends_on_to: str | None = None


class TransportError(Exception):
    """Why there is no answer. `passing`: another try may get one."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class Transport:
    """`with Transport(timeout_s) as transport:`. Proxies and certificates are those of the environment.

    Raises `BackendError` where httpx is missing, and `TransportError`.
    """

    def __init__(self, timeout_s: float) -> None:
        self._httpx, self._timeout_s = library(), timeout_s
        try:
            self._client = self._httpx.Client(timeout=min(timeout_s, 3600), follow_redirects=False)
        except (ValueError, ImportError, OSError, self._httpx.InvalidURL) as error:
            raise TransportError(
                f"a proxy or certificates that the environment names cannot be used: {error}; see HTTP_PROXY, "
                "HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE"
            ) from error

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def post(self, address: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """Ask; the server has `timeout_s` from the first byte that is sent to the last that comes."""
        httpx, limit = self._httpx, f"{self._timeout_s:g} s"
        try:
            return within(self._timeout_s, lambda: self._sent(address, body, headers))
        except httpx.ConnectError as error:
            raise TransportError(f"it cannot be reached: {error}; start it, or give another URL") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise TransportError(f"it does not answer within {limit}; give it more time, or see its log") from error
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            raise TransportError(f"it hangs up: {error}; see the server's own log", passing=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last of a host that is no name
            raise TransportError(f"it cannot be asked: {error}") from error

    def _sent(self, address: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """Nothing is unpacked: a small answer can hold one that fills the memory."""
        end, data = time.monotonic() + self._timeout_s, bytearray()
        plainly = {"accept-encoding": "identity", **headers}
        with self._client.stream("POST", address, json=body, headers=plainly) as answer:
            packed = answer.headers.get("content-encoding", "identity")
            if packed != "identity":
                raise TransportError(f"it packs its answer ({packed[:20]!r}), which was not asked for")
            for piece in answer.iter_raw():
                data += piece
                if len(data) > MOST_BYTES:
                    raise TransportError(f"its answer is longer than {MOST_BYTES >> 20} MiB")
                if time.monotonic() > end:  # nobody waits any more
                    raise TimeoutError
            sends_on_to = answer.headers.get("location", "?") if answer.is_redirect else None
            wait_s = _seconds(answer.headers.get("retry-after"))
            return Reply(answer.status_code, data.decode("utf-8", "replace"), wait_s, sends_on_to)


def within(limit_s: float, do: Callable[[], T]) -> T:
    """What `do` returns or raises, or `TimeoutError`. It runs in a thread of its own: a timeout of a socket begins
    anew with each byte."""
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((do(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=work, name="worldrt-server", daemon=True).start()
    try:
        made, error = done.get(timeout=min(limit_s, threading.TIMEOUT_MAX))
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return made  # type: ignore[return-value]


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() else None


def library() -> ModuleType:
    """httpx. Raises `BackendError` where it is not installed."""
    try:
        return importlib.import_module("httpx")
    except ImportError as error:
        raise BackendError("asking a server needs httpx: pip install 'worldrt[critic]'") from error
