"""A contender in a process of its own, and its two ends.

One JSON object per line: the parent writes a command, the child answers it. What libraries print to standard output in
the child goes to standard error, so that the answers stay clean.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from worldrt.engine import plugin
from worldrt.engine.errors import BackendError, WorldrtError
from worldrt.engine.memory import peak_rss_bytes

CONTENDERS = "worldrt.benchmarks.contenders"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class SlowError(BackendError):
    """A contender that took longer than it was given."""


class Worker:
    """The parent's end. A context manager; leaving it ends the process.

    `kind` is a file name of `contenders`, `options` are handed to its `open`. `opened` is the answer to that, and
    `peak_bytes` the most memory it had until its last answer. Raises `BackendError` where the child fails, with the
    last line it wrote.
    """

    def __init__(self, name: str, kind: str, options: Mapping[str, Any], threads: int) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this object
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {variable: str(threads) for variable in THREAD_VARIABLES},
            start_new_session=True,
        )
        try:
            self.opened: dict[str, Any] = self.ask("open", kind=kind, options=dict(options))
        except BaseException:
            self._kill()
            raise

    def ask(self, command: str, limit_s: float | None = None, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; past `limit_s`, end the process and all that it started, and raise
        `SlowError`."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
            self._process.stdin.flush()
            if limit_s is not None and not select.select([self._process.stdout], [], [], limit_s)[0]:
                self._kill()
                raise SlowError(f"{self.name}: took more than {limit_s:.0f} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BackendError(
                f"{self.name}: its process ended (exit code {self._process.wait()}): {self._last_line()}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BackendError(f"{self.name}: {answer['error']}")
        self.peak_bytes: int = answer["peak_bytes"]
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._kill()
        elif self._process.poll() is None:
            self._process.communicate()
        self._errors.close()

    def _kill(self) -> None:
        """End the process and what it started, such as compilers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _last_line(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def serve(commands: IO[str], answers: IO[str]) -> None:
    """The child's loop: `open`, then any method of the contender by name; every answer carries `peak_bytes`."""
    contender: Any = None
    for line in commands:
        arguments = json.loads(line)
        command = arguments.pop("do")
        try:
            if command == "open":
                start = time.perf_counter()
                contender = plugin.load(CONTENDERS, arguments["kind"]).open(**arguments["options"])
                answer: dict[str, Any] = {"open_s": time.perf_counter() - start}
            else:
                answer = getattr(contender, command)(**arguments)
        except (WorldrtError, ImportError) as error:
            answer = {"error": " ".join(str(error).split())}
        print(json.dumps(answer | {"peak_bytes": peak_rss_bytes() or 0}), file=answers, flush=True)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
