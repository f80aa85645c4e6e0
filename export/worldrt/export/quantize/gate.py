"""What quantisation does: errors of blocks and of x0 on recorded calls, PSNR of frames; and whether that will do."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import Bundle
from worldrt.engine.errors import InputError
from worldrt.engine.quality import Quality, StepError
from worldrt.export.quantize.find import block_outputs
from worldrt.export.quantize.measure import Probe, beside, probe, squares
from worldrt.export.quantize.runs import Array, Recorded

BEST_PSNR_DB = 100.0
"""Of equal frames, and the most that is said of others."""
_DIFFERENCE, _EXACT = "difference ", "exact "


@dataclass(frozen=True)
class Limits:
    """The largest relative error of x0 at any step, and the least PSNR of frames."""

    step_error: float = 0.05
    psnr_db: float = 30.0

    def loosened(self, factor: float) -> Limits:
        """`factor` times the error, and as many decibels less. Raises `InputError`."""
        if not 0 < factor < math.inf:
            raise InputError(f"--quantize_limit: expected a factor above 0, got {factor}")
        return Limits(self.step_error * factor, self.psnr_db - 20 * math.log10(factor))


def errors(
    exact: Bundle, quantized: Bundle, task: str, calls: Sequence[Recorded]
) -> tuple[tuple[StepError, ...], dict[str, float]]:
    """The worst error of x0 by level, and that of each block's output, over recorded calls. Both bundles compute in
    float32 on the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        measure = _both(exact, quantized, task, Path(folder) / "both.onnx")
        rows = [(call.level, measure(call)) for call in calls]
    names = [name.removeprefix(_EXACT) for name in measure.names if name.startswith(_EXACT)]
    return worst(
        (level, {name: relative(row[_DIFFERENCE + name], row[_EXACT + name]) for name in names}) for level, row in rows
    )


def worst(rows: Iterable[tuple[float, Mapping[str, float]]]) -> tuple[tuple[StepError, ...], dict[str, float]]:
    """The largest error of x0 by level, and that of each other name, of the errors of each call at its level."""
    steps: dict[float, float] = {}
    blocks: dict[str, float] = {}
    for level, row in rows:
        steps[level] = max(steps.get(level, 0.0), row["x0"])
        blocks |= {name: max(blocks.get(name, 0.0), error) for name, error in row.items() if name != "x0"}
    return tuple(StepError(level, error) for level, error in sorted(steps.items(), reverse=True)), blocks


def _both(exact: Bundle, quantized: Bundle, task: str, path: Path) -> Probe:
    """Both graphs as one, with the squares of what lies between them."""
    record = exact.manifest.denoisers[task].graphs["denoise"]
    models = [ir.load(b.path(b.manifest.denoisers[task].graphs["denoise"].file)) for b in (exact, quantized)]
    names = [weight.name for weight in record.weights]
    graph = models[0].graph
    references = {"x0": graph.outputs[0]} | block_outputs(graph, names)
    same = {value.name: value for node in models[1].graph for value in node.outputs}  # quantising renames nothing
    actual = [same[value.name] for value in references.values()]
    beside(graph, models[1].graph)
    scalars: dict[str, ir.Value] = {}
    for (name, reference), value in zip(references.items(), actual, strict=True):
        scalars[_DIFFERENCE + name], scalars[_EXACT + name] = squares(graph, value, reference)
    return probe(exact, record, path, models[0], scalars)


def relative(difference: float, exact: float) -> float:
    """The root of a quotient of sums of squares; infinite where one is not finite."""
    if not (math.isfinite(difference) and math.isfinite(exact)):
        return math.inf
    return math.sqrt(difference / exact) if exact > 0 else (math.inf if difference > 0 else 0.0)


def psnr_db(actual: Iterable[Array], exact: Iterable[Array]) -> float:
    """Peak signal-to-noise ratio of uint8 frames, 20 log10(255 / rms), over all of them, at most `BEST_PSNR_DB`."""
    total, count = 0.0, 0
    for a, b in zip(actual, exact, strict=True):
        total += float(np.square(a.astype(np.float64) - b).sum())
        count += a.size
    if not total:
        return BEST_PSNR_DB
    return min(BEST_PSNR_DB, 20 * math.log10(255) - 10 * math.log10(total / count))


def summary(task: str, kind: str, quality: Quality) -> str:
    """One line for people."""
    frames = "frames not measured" if quality.psnr_db is None else f"frames at {quality.psnr_db:.1f} dB PSNR"
    return f"{task} in {kind}: x0 off by at most {quality.worst_step:.2%} at any step, {frames}"


_ADVICE = (
    "Keep more layers as they are (--quantize_keep), calibrate on other runs (--calibration), "
    "or allow more with --quantize_limit"
)


def check_steps(task: str, steps: Sequence[StepError], limits: Limits) -> None:
    """Raises `InputError` where x0 of a step is further off than it may be."""
    worst = max(steps, key=lambda step: step.error)
    if not worst.error <= limits.step_error:
        raise InputError(
            f"{task}: quantised, x0 is off by {worst.error:.3g} at sigma {worst.level:.3g}: expected at most "
            f"{limits.step_error:.3g}. {_ADVICE}"
        )


def check_frames(task: str, psnr_db: float | None, limits: Limits) -> None:
    """Raises `InputError` where frames are further off than they may be."""
    if psnr_db is not None and not psnr_db >= limits.psnr_db:
        raise InputError(
            f"{task}: quantised, frames have a PSNR of {psnr_db:.1f} dB: expected at least {limits.psnr_db:.1f} dB. "
            f"{_ADVICE}"
        )
