"""How much memory a process needed, and how much there is."""

from __future__ import annotations

import platform
from pathlib import Path


def peak_rss_bytes() -> int | None:
    """The most memory this process ever held; None where the system does not tell.

    `getrusage` also counts what the process that started this one held, so it is asked only where there is no /proc.
    """
    held = _kilobytes("/proc/self/status", "VmHWM")
    if held is not None:
        return held * 1024
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_bytes() -> int | None:
    """Memory of the host that can be had without swapping; None where the system does not tell."""
    free = _kilobytes("/proc/meminfo", "MemAvailable")
    return None if free is None else free * 1024


def _kilobytes(file: str, name: str) -> int | None:
    """An entry of a file such as `MemAvailable:  123 kB`."""
    try:
        lines = Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found.split()[1])
