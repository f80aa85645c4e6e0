"""How far the contenders' results are apart: one evaluation of a transformer at several noise levels, and frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks.contenders.base import Workload
from worldrt.benchmarks.likeness import COLUMNS, likeness
from worldrt.benchmarks.report.verdict import FRAMES, UNRELATED
from worldrt.benchmarks.results import Table
from worldrt.benchmarks.rounds import Asked
from worldrt.engine.compare import difference

Array = np.ndarray[Any, Any]
LEVELS = (80.0, 2.0, 0.05)
SPATIAL, TEMPORAL = 8, 4
REFERENCE = "worldrt"
OTHER_NOISE = ("diffusers", "diffusers-compiled")
AGAIN = "worldrt, run again"


def tables(contenders: Mapping[str, Asked], load: Workload, scratch: Path) -> list[Table]:
    """Everyone against `worldrt` in float32: single evaluations, and frames where sampler and noise are the same."""
    others = [name for name in contenders if name != REFERENCE]
    if REFERENCE not in contenders or not others:
        return []
    made = [_evaluations(contenders, others, load, scratch)]
    comparable = [name for name in others if name not in OTHER_NOISE]
    return made + ([_frames(contenders, comparable, scratch)] if comparable else [])


def inputs(load: Workload, task: str, level: float, seed: int = 0) -> dict[str, Array]:
    """Seeded inputs of one evaluation: noise at its level on top of latents of unit size."""
    rng = np.random.default_rng(seed)
    video = task == "video2world"
    width, height = load.video_size if video else load.image_size
    frames = 1 + (load.num_frames - 1) // TEMPORAL if video else 1
    shape = (1, load.channels, frames, height // SPATIAL, width // SPATIAL)
    clean = rng.standard_normal(shape, np.float32)
    arrays = {
        "x": clean + np.float32(level) * rng.standard_normal(shape, np.float32),
        "level": np.full((1, frames), level, np.float32),
        "text": rng.standard_normal((1, load.text_tokens, load.text_width), np.float32),
    }
    if video:
        arrays |= {"clean": clean, "mask": np.eye(1, frames, dtype=np.float32)}
    return arrays


def rms_error(actual: Array, reference: Array) -> float:
    """Root mean square of the difference over that of the reference."""
    delta = actual.astype(np.float64) - reference
    return float(np.linalg.norm(delta) / np.linalg.norm(reference.astype(np.float64)))


def _evaluations(contenders: Mapping[str, Asked], others: list[str], load: Workload, scratch: Path) -> Table:
    rows: list[tuple[Any, ...]] = []
    given = scratch / "given.npz"
    for task in ("text2image", "video2world"):
        for level in LEVELS:
            with given.open("wb") as file:
                np.savez(file, **inputs(load, task, level))  # type: ignore[arg-type]
            reference = _ask(contenders[REFERENCE], "x0", scratch, "denoise", task=task, given=str(given))
            for name in others:
                x0 = _ask(contenders[name], "x0", scratch, "denoise", task=task, given=str(given))
                d = difference(name, x0, reference)
                rows.append((task, level, name, d.max_abs, d.relative, rms_error(x0, reference), 1 - d.cosine))
    columns = ("task", "sigma", "contender", "max_abs", "max_abs / max", "rms / rms", "1 - cosine")
    return Table(f"x0 of one evaluation against {REFERENCE} in float32", columns, tuple(rows))


def _frames(contenders: Mapping[str, Asked], others: list[str], scratch: Path) -> Table:
    """With two measures of the measure: the same video once more, and another one."""
    reference = _ask(contenders[REFERENCE], "frames", scratch, "frames", index=0)
    given = {name: (contenders[name], 0) for name in others}
    given |= {AGAIN: (contenders[REFERENCE], 0), UNRELATED: (contenders[REFERENCE], 1)}
    rows = [
        (name, *likeness(_ask(contender, "frames", scratch, "frames", index=index), reference).cells)
        for name, (contender, index) in given.items()
    ]
    columns = ("contender", *COLUMNS)
    notes = (f"'{AGAIN}' is the floor of this measure, '{UNRELATED}' what it gives for pictures that share nothing.",)
    return Table(f"{FRAMES} {REFERENCE} in float32", columns, tuple(rows), notes)


def _ask(contender: Asked, array: str, scratch: Path, command: str, **arguments: Any) -> Array:
    path = scratch / "answer.npz"
    contender.ask(command, path=str(path), **arguments)
    with np.load(path) as answer:
        values: Array = answer[array]
    return values
