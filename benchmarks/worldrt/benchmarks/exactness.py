"""How far the contenders' results are apart: one evaluation of a transformer at several noise levels, and frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks.contenders.base import Workload
from worldrt.benchmarks.results import Table
from worldrt.benchmarks.rounds import Asked
from worldrt.benchmarks.statistics import summarize
from worldrt.engine.compare import difference

LUMA = np.array([0.2126, 0.7152, 0.0722])
WINDOW = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
WINDOW = WINDOW / WINDOW.sum()
Array = np.ndarray[Any, Any]
LEVELS = (80.0, 2.0, 0.05)
SPATIAL, TEMPORAL = 8, 4
REFERENCE = "worldrt"
OTHER_NOISE = ("diffusers", "diffusers-compiled")
AGAIN, UNRELATED = "worldrt, run again", "another video"


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


def psnr_db(actual: Array, reference: Array) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures in dB; infinite where they are equal."""
    error = float(np.mean((actual.astype(np.float64) - reference) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def ssim(actual: Array, reference: Array) -> float:
    """Structural similarity of the luma of two uint8 pictures (H, W, 3): 1 where they are equal.

    Wang and others, Image quality assessment, 2004: Gaussian windows of 11 pixels, standard deviation 1.5.
    """
    x, y = (picture.astype(np.float64) @ LUMA for picture in (actual, reference))
    mean_x, mean_y = _blurred(x), _blurred(y)
    spread_x, spread_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    shared = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * shared + c2)
    return float(np.mean(above / ((mean_x**2 + mean_y**2 + c1) * (spread_x + spread_y + c2))))


def _blurred(plane: Array) -> Array:
    """Where the window lies inside of the picture."""
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(plane, len(WINDOW), axis)
        plane = windows @ WINDOW
    return plane


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
    rows: list[tuple[Any, ...]] = []
    for name, (contender, index) in given.items():
        frames = _ask(contender, "frames", scratch, "frames", index=index)
        values = [psnr_db(a, r) for a, r in zip(frames, reference, strict=True)]
        equal = sum(value == float("inf") for value in values)
        finite = [value for value in values if value != float("inf")]
        s = summarize(finite) if finite else None
        alike = summarize([ssim(a, r) for a, r in zip(frames, reference, strict=True)])
        dbs = (s.minimum if s else None, s.median if s else None)
        rows.append((name, len(values), equal, *dbs, alike.minimum, alike.median))
    columns = ("contender", "frames", "equal", "PSNR min_dB", "median_dB", "SSIM min", "median")
    notes = (f"'{AGAIN}' is the floor of this measure, '{UNRELATED}' what it gives for pictures that share nothing.",)
    return Table(f"Frames against {REFERENCE} in float32", columns, tuple(rows), notes)


def _ask(contender: Asked, array: str, scratch: Path, command: str, **arguments: Any) -> Array:
    path = scratch / "answer.npz"
    contender.ask(command, path=str(path), **arguments)
    with np.load(path) as answer:
        values: Array = answer[array]
    return values
