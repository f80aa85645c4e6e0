"""A command with all the processes it starts: how long, how much work, how much memory at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.errors import BackendError

CALL = "import sys; from worldrt.{module}.cli import main; sys.exit(main(sys.argv[1:]))"
POLL_S = 0.1


@dataclass(frozen=True)
class Cost:
    """`peak_bytes`: the most memory of all processes at once; a page that several share is counted once."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def run_cli(module: str, arguments: Sequence[str]) -> Cost:
    """Run a command line of worldrt (`export`) in a session of its own, and watch that session every 0.1 s.

    Raises `BackendError` with its last line where it fails. Linux only.
    """
    start, peak = time.perf_counter(), 0
    cpu_s: dict[int, float] = {}
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-c", CALL.format(module=module), *arguments]
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            members = session_members(process.pid)
            cpu_s |= members
            peak = max(peak, sum(map(shared_bytes, members)))
            time.sleep(POLL_S)
        wall_s = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
            raise BackendError(f"{' '.join(arguments)}: {lines[-1] if lines else 'failed without a word'}")
    return Cost(wall_s, sum(cpu_s.values()), peak)


def session_members(session: int) -> dict[int, float]:
    """Living processes of a session, and the CPU seconds each has used."""
    found = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()  # the name before it may hold anything
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks = int(fields[11]) + int(fields[12])
            found[int(place.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")
    return found


def shared_bytes(pid: int) -> int:
    """Proportional set size: memory of a process, shared pages divided by those who share them. 0 if it has ended."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
