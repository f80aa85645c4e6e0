"""`trt-bench export`: what an export costs. Every export is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worldrt.benchmarks.results import Table
from worldrt.engine.errors import BackendError

Samples = dict[str, list[float]]
MIB = 2**20
CALL = "import sys; from worldrt.{module}.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Cost:
    """Of a finished process."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def run_cli(module: str, arguments: Sequence[str]) -> Cost:
    """Run a command line of worldrt in a process of its own. Raises `BackendError` with its last line if it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-c", CALL.format(module=module), *arguments], stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
            raise BackendError(f"{' '.join(arguments)}: {lines[-1] if lines else 'failed without a word'}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def written_bytes(folder: Path) -> int:
    """Of all files below a folder; links count nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def run(
    models: Sequence[str], rounds: int, scratch: Path, progress: Callable[[str], None]
) -> tuple[list[Table], Samples]:
    return [], {}
