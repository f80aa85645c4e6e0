"""A module of worldrt run in a process of its own, so that a crash there is an error message here.

The child is a session of its own (Ctrl-C reaches only this process). It gets one line of JSON on stdin, whose end tells
it to stop, also where this process is killed. It answers with lines of JSON, each an object with a `kind`: `progress`,
`log`, `result`, or `error`. What it prints besides goes to stderr, of which the last lines are kept.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from worldrt.engine import errors
from worldrt.engine.errors import BackendError, WorldrtError

GRACE_S = 5.0
_LAST_LINES = 12
_NO_MEMORY = ("bad_alloc", "out of memory", "cannot allocate memory", "memoryerror", "outofmemory")


def call_in_child(module: str, request: Any, what: str, heard: Callable[[Mapping[str, Any]], None]) -> Any:
    """Run `python -m module` on a JSON value and return its result. `heard` gets its `progress` and `log` messages.

    Raises the `WorldrtError` that the child reports, `OSError` where it could not write, and `BackendError` where it
    crashed, was killed or ran out of memory. On any exception here, such as Ctrl-C, the child is told to stop, and
    ended by its process id where it does not within `GRACE_S`.
    """
    command = [sys.executable, "-m", module]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=os.path.abspath(os.sep),  # python -m puts the folder it runs in first on its path
        env=_environment(),
        start_new_session=True,
    )
    words: deque[str] = deque(maxlen=_LAST_LINES)
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    try:
        listener = threading.Thread(target=_keep, args=(child.stderr, words), daemon=True)
        listener.start()
        last = _talk(child.stdin, child.stdout, request, words, heard)
        code = child.wait()
        listener.join(GRACE_S)
    except BaseException:
        _end(child)
        raise
    finally:
        for pipe in (child.stdin, child.stdout, child.stderr):
            with suppress(OSError):
                pipe.close()
    if last is None or last["kind"] == "error" or code != 0:
        raise _failure(last, code, what, words)
    return last["value"]


def _environment() -> dict[str, str]:
    """The child imports what this process imports, and nothing from the folder that it happens to run in."""
    paths = [os.path.abspath(path) for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def _talk(
    stdin: IO[bytes],
    stdout: IO[bytes],
    request: Any,
    words: deque[str],
    heard: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any] | None:
    """The result or error that the child ends with; None where it ends without."""
    with suppress(BrokenPipeError):  # it is dead already; its exit code says more
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
    last = None
    for line in stdout:
        try:
            message = json.loads(line)
        except ValueError:  # cut short in the middle of a message
            continue
        if message["kind"] in ("result", "error"):
            last = message
            continue
        if message["kind"] == "log":
            words.append(message["text"])
        heard(message)
    return last


def _keep(stream: IO[bytes], words: deque[str]) -> None:
    with suppress(ValueError, OSError):  # closed while it was read
        for line in stream:
            text = line.decode(errors="replace").strip()
            if text:
                words.append(text)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Tell the child to stop by the end of its stdin; kill it where it does not."""
    assert child.stdin is not None
    with suppress(OSError):
        child.stdin.close()
    try:
        child.wait(GRACE_S)
    except BaseException:  # time is up, or Ctrl-C again
        child.kill()
        child.wait()


def _failure(last: Mapping[str, Any] | None, code: int, what: str, words: deque[str]) -> Exception:
    if last is not None and last["kind"] == "error":
        if last["errno"] is not None:
            return OSError(last["errno"], os.strerror(last["errno"]))
        kind = getattr(errors, last["error"], BackendError)
        return kind(last["text"]) if issubclass(kind, WorldrtError) else BackendError(last["text"])
    said = " | ".join(words)
    if any(sign in said.lower() for sign in _NO_MEMORY):
        return BackendError(f"{what}: out of memory{_ended(code)}; {_less_memory()} It said last: {said}")
    if code == -signal.SIGKILL:
        return BackendError(
            f"{what}: its process was killed, mostly because memory ran out; {_less_memory()} It said last: {said}"
        )
    return BackendError(f"{what}: its process crashed{_ended(code)}. It said last: {said or 'nothing'}")


def _less_memory() -> str:
    return "free some, or build a block at a time (trt-export --form block, --block_weights inputs)."


def _ended(code: int) -> str:
    if code >= 0:
        return f" (exit code {code})"
    names = {int(number): number.name for number in signal.Signals}
    return f" ({names.get(-code, f'signal {-code}')})"
