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
from typing import Any

from worldrt.benchmarks.fabricate import make_nano, sparse_transformer
from worldrt.benchmarks.results import Table
from worldrt.engine.errors import BackendError

Samples = dict[str, list[float]]
MIB = 2**20
NOTES = (
    "nano: all components. Others: the video2world transformer in bfloat16, from sparse files of the real shape. "
    "Nothing is verified and no torch program is saved. written_MiB leaves weights out, as the export does.",
)
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
    """Export every model in both forms, `rounds` times each; larger ones from sparse files of their shape."""
    rows: list[tuple[Any, ...]] = []
    samples: Samples = {}
    for model in models:
        source = _source(model, scratch)
        for form in ("block", "whole"):
            output = scratch / f"{model}-{form}"
            costs = []
            for index in range(rounds):
                progress(f"export {model}, {form}: {index + 1} of {rounds}")
                costs.append(run_cli("export", [*source, "--form", form, "--overwrite", "--output", str(output)]))
            written = written_bytes(output)
            name = f"{model}/{form}"
            samples[f"{name}/wall_s"] = [cost.wall_s for cost in costs]
            samples[f"{name}/cpu_s"] = [cost.cpu_s for cost in costs]
            samples[f"{name}/peak_bytes"] = [float(cost.peak_bytes) for cost in costs]
            best = min(costs, key=lambda cost: cost.wall_s)
            rows.append((model, form, rounds, best.wall_s, best.cpu_s, best.peak_bytes / MIB, written / MIB))
    columns = ("model", "form", "rounds", "wall_s", "cpu_s", "peak_MiB", "written_MiB")
    return [Table("Exports, one process each; the fastest round", columns, tuple(rows), NOTES)], samples


def _source(model: str, scratch: Path) -> list[str]:
    """The arguments that say what is exported; makes the checkpoint."""
    if model == "nano":
        root = scratch / "nano-checkpoint"
        make_nano(root)
        return ["--model", "nano", "--checkpoint", str(root), "--no-verify", "--no-torch_program"]
    root = scratch / f"{model}-checkpoint"
    sparse_transformer(root / "transformer", model)
    return ["--model", model, "--task", "video2world", "--components", "video2world", "--checkpoint", str(root)]
