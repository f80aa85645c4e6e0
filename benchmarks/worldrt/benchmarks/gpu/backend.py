"""nano on one backend, every component and some sampling steps, against float32 on the CPU: `trt-run compare`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldrt.benchmarks.gpu.base import CheckError, Made, MissingError, Samples, Setup
from worldrt.benchmarks.results import Table
from worldrt.engine import plugin
from worldrt.engine.bundle import load_bundle
from worldrt.engine.errors import BackendError
from worldrt.kernels import cuda
from worldrt.runtime import compare, probes
from worldrt.runtime.compare import Comparison, Row
from worldrt.runtime.compare_cli import PROMPT, parse_backend
from worldrt.runtime.models import Models
from worldrt.runtime.probes import Case

PRECISIONS = ("float32", "bfloat16")
STEPS, DRY_STEPS = 6, 1


def run(setup: Setup) -> Iterator[Made]:
    """Raises `MissingError` where the backend or a bundle is not there, and at the end where the kernels of a step are
    not, without which transformers do not run; `CheckError` past a tolerance."""
    name, _, options = parse_backend(setup.argument)
    reason = _unavailable(name, setup)
    if reason:
        raise MissingError(reason)
    if name == "torch" and not _has_programs(setup.bundle()):
        raise MissingError("the bundle of nano here holds no torch programs, and none could be exported")
    reference = _reference(setup)
    case = Case(PROMPT, DRY_STEPS if setup.dry else STEPS, seed=0)
    failed: list[str] = []
    lacking = None if setup.dry else cuda.missing()
    for precision in PRECISIONS if not setup.dry else PRECISIONS[:1]:
        folder = setup.found(precision)
        if folder is None:
            print(f"no {precision} bundle: skipped", flush=True)
            continue
        try:
            models = Models.open([folder], backend=name, device=setup.device, options=options)
        except BackendError as error:
            raise MissingError(str(error)) from error
        chosen = [part for part in probes.parts(models.bundles[0].manifest) if not setup.dry or part[0] == "text"]
        chosen = [part for part in chosen if part[1] or not lacking]
        contenders = {reference[0]: reference[1], setup.argument: models}
        done = compare.run(contenders, chosen, case, min(setup.rounds, 10))
        failed += [f"{precision} {row.component}" for row in done.rows if row.passed is False]
        yield _made(f"{setup.argument} on {setup.device}, nano in {precision}", precision, done)
    if failed:
        raise CheckError(f"past the tolerance, or not run: {', '.join(dict.fromkeys(failed))}")
    if lacking:
        raise MissingError(f"transformers were not run: CUDA kernels: {lacking}")


def _reference(setup: Setup) -> tuple[str, Models]:
    """The float32 bundle on the CPU, by ONNX Runtime or else by torch."""
    bundle: Path = setup.bundle()
    for name in ("onnxruntime", "torch") if _has_programs(bundle) else ("onnxruntime",):
        if plugin.load("worldrt.engine.backends", name).unavailable() is None:
            return f"{name}:cpu", Models.open([bundle], backend=name, device="cpu")
    raise MissingError("nothing is here to compare with: no onnxruntime, or no torch with a bundle that has programs")


def _has_programs(folder: Path) -> bool:
    """Whether torch can run all graphs of a bundle."""
    parts = load_bundle(folder).manifest.components().values()
    return all(graph.program is not None for part in parts for graph in part.graphs.values())


def _unavailable(name: str, setup: Setup) -> str | None:
    reason: str | None = plugin.load("worldrt.engine.backends", name).unavailable()
    if reason is None and setup.dry and name.startswith("tensorrt"):
        return f"{name} runs on a GPU"
    if reason is None and name == "onnxruntime" and not setup.dry:
        providers = importlib.import_module("onnxruntime").get_available_providers()
        return None if "CUDAExecutionProvider" in providers else "this onnxruntime is without the CUDA provider"
    return reason


def _made(title: str, precision: str, done: Comparison) -> Made:
    rows = tuple(_cells(row) for row in done.rows)
    columns = ("component", "tensor", "max_abs / max", "1 - cosine", "PSNR_dB", "limit", "outcome")
    notes = (f"Against float32 on {done.backends[0]}. The limit of pictures is that of their noise: -20 log10 of it.",)
    times = tuple((t.component, t.work, t.backend, len(t.seconds), 1e3 * t.median_s) for t in done.timings)
    samples: Samples = {
        f"{precision}/{t.component}/{t.work}/{t.backend}_s": list(t.seconds) for t in done.timings if t.seconds
    }
    timings = Table(f"{title}: times", ("component", "work", "backend", "rounds", "median_ms"), times)
    return [Table(title, columns, rows, notes), timings], samples


def _cells(row: Row) -> tuple[Any, ...]:
    outcome = row.problem or {True: "ok", False: "FAILED", None: "-"}[row.passed]
    if row.difference is None:
        return row.component, row.tensor, None, None, None, None, outcome
    d, psnr = row.difference, row.psnr_db
    shown = None if psnr is None else min(psnr, 999.0)  # equal pictures have no noise
    relative = d.relative if d.relative < float("inf") else None
    return row.component, row.tensor, relative, 1 - d.cosine, shown, row.tolerance, outcome
