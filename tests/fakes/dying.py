"""`python dying.py LOG PHASE VICTIM ARGS...`: `trt-run ARGS` of two ranks, one of which is killed when rank 0 comes to
a phase. LOG gets, as JSON, the ids of both processes and when that was."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from worldrt.runtime.cli import main

PHASES = {
    "load": ("worldrt.runtime.models", "Models.denoiser", 1),
    "text": ("worldrt.runtime.text", "TextEncoder.encode", 1),
    "sampling": ("worldrt.runtime.steps", "Steps.evaluate", 2),
    "window": ("worldrt.runtime.live.window", "_Window.fill", 20),
    "gather": ("worldrt.runtime.parallel.bound", "SharedBound.whole", 1),
    "decode": ("worldrt.runtime.vae", "Decoder._next", 1),
    "write": ("worldrt.runtime.sinks.base", "VideoFormat.check", 1),
    "finish": ("worldrt.engine.files", "_put", 1),
}
"""Where each begins: module, function, and which call of it."""


def child() -> int:
    """The other rank, which this process has started."""
    tasks = Path("/proc/self/task").glob("*/children")
    (found,) = {int(pid) for task in tasks for pid in task.read_text().split()}
    return found


def kill(log: Path, victim: int) -> None:
    pids = [os.getpid(), child()]
    log.write_text(json.dumps({"pids": pids, "killed_s": time.monotonic()}))
    os.kill(pids[victim], signal.SIGKILL)


def arm(log: Path, phase: str, victim: int) -> None:
    module, name, call = PHASES[phase]
    owner = importlib.import_module(module)
    if "." in name:
        kind, name = name.split(".")
        owner = getattr(owner, kind)
    original, calls = getattr(owner, name), 0

    def counted(*args, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            kill(log, victim)
            if phase == "finish":
                time.sleep(1)  # the news is there before the file is
        return original(*args, **options)

    setattr(owner, name, counted)


if __name__ == "__main__":
    arm(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    sys.exit(main(sys.argv[4:]))
