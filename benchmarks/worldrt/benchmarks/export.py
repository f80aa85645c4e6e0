"""`trt-bench export`: what an export costs, all its processes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from worldrt.benchmarks import checkpoints
from worldrt.benchmarks.processes import POLL_S, run_cli
from worldrt.benchmarks.results import Table

Samples = dict[str, list[float]]
MIB = 2**20
NOTES = (
    "nano: all components. Others: the video2world transformer in bfloat16, from sparse files of the true shape. "
    "Nothing is verified and no torch program is saved. written_MiB leaves weights out, as the export does.",
    f"peak_MiB is of all processes at once, looked at every {POLL_S} s; pages that several share count once.",
)


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


def _source(size: str, scratch: Path) -> list[str]:
    """The arguments that say what is exported; makes the checkpoint."""
    root = scratch / f"{size}-checkpoint"
    if size == "nano":
        checkpoints.make(size, root)
        return ["--model", "nano", "--checkpoint", str(root), "--no-verify", "--no-torch_program"]
    checkpoints.make(size, root, "video2world")
    return ["--model", size, "--task", "video2world", "--components", "video2world", "--checkpoint", str(root)]
