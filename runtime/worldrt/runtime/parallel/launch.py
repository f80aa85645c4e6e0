"""How a run gets its ranks: from torchrun, or from itself.

Under torchrun every process finds its rank in the environment, and rank 0 says where the others meet it. Without, the
process that the user started is rank 0 and starts the others, with the same command line. Whatever happens, no process
stays behind: who loses rank 0 ends itself, and rank 0 ends those that it started.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from worldrt.engine.cli import USER_ERROR
from worldrt.engine.errors import BackendError, InputError, RankError
from worldrt.runtime.parallel.control import HOST_LOST, LOOPBACK, Control
from worldrt.runtime.parallel.meeting import JOIN_S, Meeting, join

GRACE_S = 3.0
"""From the news of a failure to the end of a process that does not end by itself."""
LOST_S = 1.0
"""The same for the others, once rank 0 has ended its part: one of them may be stopped for good."""
_KEY = "WORLDRT_RANK0"  # where rank 0 waits: host, port, secret, as JSON; for processes that rank 0 started
_STORE_KEY = "worldrt rank 0"


@dataclass(frozen=True)
class Place:
    """Which process this is: of all, and of those on this machine. `own`: rank 0 starts the others itself."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    own: bool


def place(wanted: int | None, environment: Mapping[str, str]) -> Place:
    """This process of a run on `wanted` devices. Raises `InputError` where torchrun has started another number."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(environment.get(name) for name in names) and _KEY not in environment:
        return Place(0, wanted or 1, 0, wanted or 1, own=True)
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local = int(environment.get("LOCAL_RANK", rank)), int(environment.get("LOCAL_WORLD_SIZE", size))
    except (KeyError, ValueError) as error:
        raise InputError(f"the environment of torchrun is damaged: {error}; start the run anew") from error
    if size != (wanted or 1):
        raise InputError(
            f"--num_gpus {wanted or 1}: torchrun has started {size} process(es); say --num_gpus {size}, or "
            f"torchrun --nproc_per_node={wanted or 1}"
        )
    return Place(rank, size, *local, own=False)


@contextmanager
def joined(here: Place, command: Sequence[str], limit_s: float) -> Iterator[Control]:
    """The processes of a run, together; `command` starts one, where this one is to start the others. A failure of one
    ends all: in this one `RankError` is raised, wherever the main thread is; a process that does not heed that ends
    after `GRACE_S`."""
    children = _Children()
    try:
        control = _met(here, command, limit_s, children)
    except BaseException:
        children.end()
        raise
    control.on_failure.append(lambda: _alarm(control, children))
    with _heard(control):
        try:
            yield control
        except BaseException as error:
            if control.failure is None:
                control.tell(f"rank {control.rank}: {' '.join(str(error).split()) or type(error).__name__}")
                raise
            raise RankError(control.failure) from error  # it may have come out as something else
        finally:
            control.close()
            children.end(GRACE_S if control.failure is None else LOST_S)


class _Children:
    """The processes that rank 0 has started."""

    def __init__(self) -> None:
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, size: int, command: Sequence[str], meeting: Mapping[str, Any]) -> None:
        for rank in range(1, size):
            own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
            self._running[rank] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment | {_KEY: json.dumps(meeting)},
                start_new_session=True,  # Ctrl-C is for rank 0, which ends the others
            )

    def check(self) -> None:
        """Raises `RankError` for one that has ended."""
        for rank, child in self._running.items():
            if child.poll() is not None:
                raise RankError(f"rank {rank}: its process has ended (exit code {child.returncode}) before it joined")

    def end(self, grace_s: float = GRACE_S) -> None:
        """Wait for all, and end those that stay for longer."""
        until_s = time.monotonic() + grace_s
        for child in self._running.values():
            try:
                child.wait(max(0.0, until_s - time.monotonic()))
            except BaseException:
                child.kill()
                child.wait()

    def kill(self) -> None:
        for child in self._running.values():
            with suppress(OSError):
                child.kill()


def _met(here: Place, command: Sequence[str], limit_s: float, children: _Children) -> Control:
    if here.own:
        meeting = Meeting(here.size, secrets.token_hex(16))
        children.start(here.size, command, {"host": LOOPBACK, "port": meeting.port, "secret": meeting.secret})
        return meeting.hold(limit_s=limit_s, alive=children.check)
    if _KEY in os.environ:
        return join(here.rank, here.size, **json.loads(os.environ[_KEY]), limit_s=limit_s)
    store = _store(here)
    if here.rank == 0:
        host = LOOPBACK if here.size == here.local_size else os.environ["MASTER_ADDR"]
        meeting = Meeting(here.size, secrets.token_hex(16), host)
        store.set(_STORE_KEY, json.dumps({"host": host, "port": meeting.port, "secret": meeting.secret}))
        return meeting.hold(limit_s=limit_s)
    try:
        found = json.loads(store.get(_STORE_KEY))
    except Exception as error:  # of torch
        raise RankError(f"rank {here.rank}: rank 0 has not come within {JOIN_S:.0f} s: {error}") from error
    return join(here.rank, here.size, **found, limit_s=limit_s)


def _store(here: Place) -> Any:
    """The store at torchrun's address, which its agent holds, or else rank 0."""
    try:
        distributed = importlib.import_module("torch.distributed")
    except ImportError as error:
        raise BackendError(f"torchrun needs torch: pip install torch; or leave torchrun out ({error})") from error
    timeout = importlib.import_module("datetime").timedelta(seconds=JOIN_S)
    master = here.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if not port:
        raise InputError(
            "torchrun --master_port=0: its processes are not told the port that was found; --standalone does"
        )
    return distributed.TCPStore(address, port, None, master, timeout, wait_for_workers=False)


@contextmanager
def _heard(control: Control) -> Iterator[None]:
    """News of a failure interrupt the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, lambda *_: None if control.settled else control.check())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _alarm(control: Control, children: _Children) -> None:
    """Interrupt the main thread, and end the process where that does not help."""
    threading.Thread(target=_end, args=(control, children), daemon=True).start()
    with suppress(ProcessLookupError, ValueError):
        main = threading.main_thread().ident
        if main is not None and not control.closed and callable(signal.getsignal(signal.SIGUSR1)):
            signal.pthread_kill(main, signal.SIGUSR1)


def _end(control: Control, children: _Children) -> None:
    with control.changed:
        while not control.changed.wait_for(lambda: control.closed, GRACE_S):
            if not control.settled:
                break
        else:
            return
    if control.rank == 0 or str(control.failure).startswith(HOST_LOST):
        print(f"error: {control.failure}", file=sys.stderr, flush=True)
    children.kill()
    os._exit(USER_ERROR)
