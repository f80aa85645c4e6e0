"""A command with all the processes it starts: how long, how much work, how much memory at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worldrt.engine.errors import BackendError

CALL = "import sys; from worldrt.{module}.cli import main; sys.exit(main(sys.argv[1:]))"
POLL_S = 0.2


@dataclass(frozen=True)
class Cost:
    """`peak_bytes`: the most memory of all processes at once; a page that several share is counted once. `output` is
    what was printed."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str = ""


def run_cli(module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command line of worldrt (`export`) in a session of its own, and watch its processes every `POLL_S`.

    `environment` is added to this process's own. Raises `BackendError` with its last line where it fails. Linux only.
    """
    start, peak = time.perf_counter(), 0
    cpu_s: dict[int, float] = {}
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-c", CALL.format(module=module), *arguments]
        process = subprocess.Popen(
            command, stdout=printed, stderr=said, start_new_session=True, env={**os.environ, **(environment or {})}
        )
        while process.poll() is None:
            members = family(process.pid)
            cpu_s |= members
            peak = max(peak, sum(map(shared_bytes, members)))
            time.sleep(POLL_S)
        wall_s = time.perf_counter() - start
        output, errors = (_text(stream) for stream in (printed, said))
    if process.returncode:
        lines = [line for line in (output + errors).splitlines() if line.strip()]
        raise BackendError(f"{' '.join(arguments)}: {lines[-1] if lines else 'failed without a word'}")
    return Cost(wall_s, sum(cpu_s.values()), peak, output)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def family(pid: int) -> dict[int, float]:
    """A process, those of its session, and all that they started, with the CPU seconds that each has used."""
    parents: dict[int, int] = {}
    members: set[int] = {pid}
    used_s: dict[int, float] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()  # the name before it may hold anything
        except OSError:
            continue
        number = int(place.parent.name)
        parents[number] = int(fields[1])
        used_s[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if int(fields[3]) == pid:
            members.add(number)
    grown = True
    while grown:
        more = {number for number, parent in parents.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return {number: used_s[number] for number in members if number in used_s}


def shared_bytes(pid: int) -> int:
    """Proportional set size: memory of a process, shared pages divided by those who share them. 0 if it has ended."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
