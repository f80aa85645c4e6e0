"""Whether a machine was quiet during a run: how many of its cores others kept busy."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BUSY = 0.15
"""Share of the cores from which times are not to be trusted."""
STAT = Path("/proc/stat")
IDLE = (3, 4)
"""Places of idle and of waiting for disks in its first line."""
GUESTS = 8
"""Where guests begin, whose time has been counted before."""
PR_SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl: what a child leaves behind becomes a child of this process, and not of the first one."""


@contextmanager
def adopting() -> Iterator[None]:
    """Count the work of all descendants, those too that outlive their parents and end before this does. Linux only;
    elsewhere nothing."""
    _adopt(True)
    try:
        yield
        _reap()
    finally:
        _adopt(False)


def _adopt(wanted: bool) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def _reap() -> None:
    """Wait for all children that have ended, once nobody else will: what they used is counted from then on."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@dataclass(frozen=True)
class Quiet:
    """A moment from which on it is counted. Seconds of CPU: of all that ran on the machine, what other machines took
    from this one (steal) included, and of this process and the children that it has waited for."""

    time_s: float
    all_s: float | None
    own_s: float

    @classmethod
    def now(cls) -> Quiet:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(time.monotonic(), _busy_s(), sum(u.ru_utime + u.ru_stime for u in used))

    def others(self) -> float | None:
        """Cores that others have used since then, on average; None where the system does not say."""
        later = Quiet.now()
        if later.all_s is None or self.all_s is None:
            return None
        passed = max(later.time_s - self.time_s, 1e-9)
        return max(0.0, (later.all_s - self.all_s) - (later.own_s - self.own_s)) / passed


def caution(others: float | None, cores: int) -> str:
    """What a reader must know of the times, or nothing."""
    if others is None or others < BUSY * cores:
        return ""
    return (
        f"others used {others:.1f} of {cores} cores meanwhile: times are placeholders, ratios of interleaved rounds "
        "hold better"
    )


def _busy_s() -> float | None:
    if not STAT.is_file():
        return None
    ticks = [int(word) for word in STAT.read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(count for place, count in enumerate(ticks[:GUESTS]) if place not in IDLE)
    return busy / os.sysconf("SC_CLK_TCK")
