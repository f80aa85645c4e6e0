"""The process that builds one plan: `python -m worldrt.engine.build_child`, spoken to by `worldrt.engine.child`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, TextIO

from worldrt.engine.build import Order
from worldrt.engine.child import GRACE_S
from worldrt.engine.device import Device, open_device
from worldrt.engine.errors import BackendError, WorldrtError
from worldrt.engine.plans import Target
from worldrt.engine.schema import decode, encode


class Voice:
    """Writes messages to the parent, from any thread. `cancelled` is set when the parent wants no more."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._lock = out, threading.Lock()
        self._next_s = 0.0
        self.cancelled = threading.Event()

    def say(self, kind: str, **content: Any) -> None:
        try:
            with self._lock:
                self._out.write(json.dumps({"kind": kind, **content}) + "\n")
                self._out.flush()
        except BrokenPipeError:  # the parent is gone; the library that is calling must not see that
            self.cancelled.set()

    def log(self, severity: str, text: str) -> None:
        self.say("log", severity=severity, text=text)

    def progress(self, text: str, done: float) -> bool:
        """Whether to go on. Said some ten times a second."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + 0.1
            self.say("progress", text=text, done=done)
        return not self.cancelled.is_set()

    def watch(self) -> None:
        """Wait for the end of stdin; a build that does not notice it in time is ended."""
        sys.stdin.read()
        self.cancelled.set()
        time.sleep(GRACE_S)
        os._exit(1)


def main() -> int:
    """Read an order, carry it out, say how it went."""
    voice = Voice(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # libraries print; that must not mix with messages
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=voice.watch, daemon=True).start()
    try:
        voice.say("result", value=encode(_carry_out(decode(Order, request), voice)))
    except WorldrtError as error:
        voice.say("error", error=type(error).__name__, text=str(error), errno=None)
    except MemoryError as error:
        text = f"out of memory ({error or 'of the host'}); free some, or build a block at a time"
        voice.say("error", error=BackendError.__name__, text=text, errno=None)
    except OSError as error:
        if error.errno is None:
            raise
        voice.say("error", error=OSError.__name__, text=str(error), errno=error.errno)
    return 0


def _carry_out(order: Order, voice: Voice) -> Any:
    from worldrt.engine.backends._library import load_library
    from worldrt.engine.builder import build, find_unsupported

    library = load_library(order.job.library)
    gpu = choose_gpu(order.job.target)
    if order.output is None:
        return find_unsupported(library, order.job, voice.log)
    plan, report = build(library, order.job, log=voice.log, progress=voice.progress, timing_cache=order.timing_cache)
    with order.output.open("wb") as file:
        file.write(plan)
        file.flush()
        os.fsync(file.fileno())
    del gpu  # it was the current one until here
    return report


def choose_gpu(target: Target) -> Device | None:
    """Make the GPU that a plan is for the current one, where the plan is for one and not built ahead of time.

    Raises `BackendError` where it is not here.
    """
    if not target.gpu_name:
        return None
    there: list[str] = []
    try:
        while True:
            device = open_device(f"cuda:{len(there)}")
            if getattr(device, "target", None) == target:
                return device
            there.append(device.name)
    except BackendError as error:
        words = ", ".join(there) or f"none ({error})"
        raise BackendError(f"the plan is for {target.gpu_name}; GPUs here: {words}") from error


if __name__ == "__main__":
    sys.exit(main())
