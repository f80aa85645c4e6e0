"""`trt-bench engines`: what it takes to compile a model for a GPU, ahead of time, as a user would ask for it.

Every case is `trt-export ... --backend tensorrt_rtx` in a process of its own, which builds each plan in another; then
the same again, which finds the plans in the cache.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldrt.benchmarks import checkpoints
from worldrt.benchmarks.export import written_bytes
from worldrt.benchmarks.processes import POLL_S, Cost, run_cli
from worldrt.benchmarks.results import Table
from worldrt.engine.bundle import load_bundle
from worldrt.engine.weights import open_weights

Samples = dict[str, list[float]]
MIB = 2**20
TASK = "video2world"
COLUMNS = (
    *("case", "plans", "wall_s", "cpu_s", "export_s", "build_s", "longest_s", "peak_MiB", "builder_MiB", "plans_MiB"),
    *("files_MiB", "again_s", "hits_s"),
)
NOTES = (
    "wall_s and cpu_s: the command from checkpoint to plans, processes started and ended; export_s and build_s: its "
    f"parts by its own report; longest_s: the plan that took longest. peak_MiB: of all processes, every {POLL_S} s; "
    "builder_MiB: of the largest process that builds. files_MiB: bundle and plan cache, without the checkpoint. "
    "again_s: the whole command when every plan is in the cache; hits_s: of it, finding and checking them.",
    "2B and 14B: the video2world transformer in bfloat16 at the model's own ranges (720p, 16 fps, 1 to 24 latents, "
    "batch 1 and 2). Weights of 2B are random; those of 14B are not read, but for its header.",
)


@dataclass(frozen=True)
class Case:
    """A model in a form. `weights`: of the blocks, as `--block_weights` says it."""

    model: str
    precision: str
    form: str
    weights: str = "auto"
    random: bool = False

    @property
    def source(self) -> str:
        """What cases share one checkpoint."""
        return f"{self.model}-{'random' if self.random else 'plain'}"


CASES = {
    "nano-fp16": Case("nano", "fp16", "whole"),
    "nano-bf16": Case("nano", "bf16", "whole"),
    "2B-inputs": Case("2B", "bf16", "block", "inputs", random=True),
    "14B-inputs": Case("14B", "bf16", "block", "inputs"),
    "2B-constants": Case("2B", "bf16", "block", "constants", random=True),
    "2B-whole": Case("2B", "bf16", "whole", random=True),
}
LIGHT = tuple(name for name in CASES if name.endswith("inputs") or name.startswith("nano"))
"""What needs neither much memory nor much disk."""


def run(
    names: Sequence[str], backend: str, capability: str, rounds: int, scratch: Path, progress: Callable[[str], None]
) -> tuple[list[Table], Samples]:
    """Measure some cases, each from nothing `rounds` times, of which the fastest is shown. A checkpoint is removed
    after the last case that uses it. Raises what a build raises."""
    rows: list[tuple[Any, ...]] = []
    samples: Samples = {}
    cases = sorted((CASES[name].source, name) for name in names)
    for index, (source, name) in enumerate(cases):
        made = []
        for number in range(rounds):
            progress(f"engines: {name}, {number + 1} of {rounds}")
            row, measured = _measure(name, backend, capability, scratch, progress)
            made.append(row)
            for key, values in measured.items():
                samples.setdefault(f"{name}/{key}", []).extend(values)
        rows.append(min(made, key=lambda row: float(row[2])))
        if source not in {other for other, _ in cases[index + 1 :]}:
            shutil.rmtree(scratch / source)
    rows.sort(key=lambda row: list(CASES).index(row[0]))
    title = f"Plans of {backend} for compute capability {capability}, built on a CPU"
    return [Table(title, COLUMNS, tuple(rows), NOTES)], samples


def _measure(
    name: str, backend: str, capability: str, scratch: Path, progress: Callable[[str], None]
) -> tuple[tuple[Any, ...], Samples]:
    case, folder, cache = CASES[name], scratch / name, scratch / f"{name}-plans"
    engine = ["--backend", backend, "--compute_capability", capability, "--block_weights", case.weights, "--json"]
    place = {"WORLDRT_PLAN_CACHE": str(cache)}
    export = [*_source(case, scratch, progress), "--precision", case.precision, "--form", case.form]
    made = run_cli("export", [*export, "--no-verify", "--output", str(folder), *engine], place)
    progress(f"engines: {name}, once more")
    root = ["--checkpoint", str(scratch / case.source)]
    again = run_cli("export", ["--bundle", str(folder), *root, *engine], place)
    report, plans, hits = _report(made), _plans(made), _plans(again)
    if not all(plan["hit"] for plan in hits):
        raise AssertionError(f"{name}: a plan was built twice")
    builds = [float(plan["build"]["seconds"]) for plan in plans]
    samples = {
        "wall_s": [made.wall_s],
        "cpu_s": [made.cpu_s],
        "peak_bytes": [float(made.peak_bytes)],
        "again_s": [again.wall_s],
        "build_s": builds,
        "builder_bytes": [float(plan["build"]["peak_rss_bytes"]) for plan in plans],
        "plan_bytes": [float(plan["plan_bytes"]) for plan in plans],
        "obtain_s": [float(plan["seconds"]) for plan in plans],
        "hit_s": [float(plan["seconds"]) for plan in hits],
    }
    files = written_bytes(folder) + written_bytes(cache) - _held(folder)
    row = (
        *(
            name,
            len(plans),
            made.wall_s,
            made.cpu_s,
            float(report["seconds"]),
            sum(samples["obtain_s"]),
            max(samples["obtain_s"]),
        ),
        *(made.peak_bytes / MIB, max(samples["builder_bytes"]) / MIB, sum(samples["plan_bytes"]) / MIB, files / MIB),
        *(again.wall_s, sum(samples["hit_s"])),
    )
    shutil.rmtree(cache)
    shutil.rmtree(folder)
    return row, samples


def _source(case: Case, scratch: Path, progress: Callable[[str], None]) -> list[str]:
    """The arguments that say what is exported; makes the checkpoint where it is not there yet."""
    root = scratch / case.source
    task = "all" if case.model == "nano" else TASK
    chosen = ["--model", case.model, "--checkpoint", str(root)]
    chosen += [] if case.model == "nano" else ["--task", TASK, "--components", TASK]
    if not root.exists():
        progress(f"engines: make the checkpoint {case.source}")
        checkpoints.make(case.model, root, task)
        if case.random:
            _randomise(chosen, scratch)
    return chosen


def _randomise(chosen: Sequence[str], scratch: Path) -> None:
    """An export says where the tensors lie."""
    folder = scratch / "places"
    run_cli("export", [*chosen, "--no-verify", "--form", "block", "--output", str(folder)])
    bundle = load_bundle(folder)
    checkpoints.randomise(open_weights(bundle, bundle.manifest.denoisers[TASK]))
    shutil.rmtree(folder)


def _report(cost: Cost) -> Mapping[str, Any]:
    report: Mapping[str, Any] = json.loads(cost.output)
    return report


def _plans(cost: Cost) -> list[Mapping[str, Any]]:
    """One entry of each plan; two graphs may share one."""
    plans: list[Mapping[str, Any]] = _report(cost)["engines"]
    return list({plan["digest"]: plan for plan in plans}.values())


def _held(folder: Path) -> int:
    """Bytes of a checkpoint that a bundle holds itself."""
    return written_bytes(folder / "checkpoint") if (folder / "checkpoint").is_dir() else 0
