"""How well a steered world obeys, by schedule: the bend of the road that is seen against the control that was given.

Of a trained world of The Matrix, in the pictures of the nano world, whose curvature can be measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks.curvature import curvature_per_m
from worldrt.benchmarks.results import Table
from worldrt.benchmarks.statistics import quantile
from worldrt.engine.errors import WorldrtError
from worldrt.engine.packaged import packaged
from worldrt.runtime.live.model import Told
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.law import Schedule

Array = np.ndarray[Any, Any]
MODEL = "nano-matrix"
PROMPT = "A white car drives across a sandy desert under a clear sky at noon."
TURNS = {"D": 0.0, "DL": -1.0, "DR": 1.0}
HELD = ("D",) * 6 + ("DL",) * 10 + ("D",) * 6 + ("DR",) * 10
"""Latents, again and again."""
LONGEST_LAG = 40
"""Frames."""
SEED = 0
COLUMNS = ("schedule", "latents", "latent_ms", "delay in frames", "correlation", "turns obeyed", "frames judged")
NOTES = (
    "delay: the shift of the controls, each of which belongs to a latent, at which the curvature that is measured in "
    "the pictures follows them best, in frames; it is that of the network, and comes on top of that of the queue. "
    "correlation: at this shift. turns obeyed: share of the frames of a turn, from its second half second on, whose "
    "road bends to that side; chance is 50 %.",
)


def schedules(own: Schedule) -> dict[str, Schedule | None]:
    """By name; None is that of the bundle."""
    steps = own.steps
    return {
        "of the bundle": None,
        "Swin-DPM, third stage": methods.swin_dpm(20, 4, 4),
        "Swin-DPM, fourth stage": methods.swin_dpm(4, 4, 1),
        "one latent at a time": methods.autoregressive(steps, 1, history=1),
        "FIFO": methods.fifo(4, max(1, steps // 4), lookahead=True),
    }


def table(
    bundle: Path | None, seconds: int, threads: int, progress: Callable[[str], None]
) -> tuple[Table, dict[str, list[float]]]:
    """Of `bundle`, or of the one that comes with the package; a line that says so where there is none."""
    folder = bundle or packaged(MODEL)
    title = "Control of a world, by schedule"
    if folder is None:
        why = f"not measured: no trained {MODEL} comes with the package; give one with --world"
        return Table(title, COLUMNS, ((why, *[None] * (len(COLUMNS) - 1)),)), {}
    models = Models.open([folder], options={"threads": threads})
    rows: list[tuple[Any, ...]] = []
    samples: dict[str, list[float]] = {}
    for name, schedule in schedules(World(models).schedule).items():
        progress(f"control: {name}")
        try:
            rows.append((name, *_measured(World(models, schedule=schedule), seconds, name, samples)))
        except WorldrtError as error:
            rows.append((f"{name}: not run: {str(error).splitlines()[0]}", *[None] * (len(COLUMNS) - 1)))
    return Table(title, COLUMNS, tuple(rows), NOTES), samples


def _measured(world: World, seconds: int, name: str, samples: dict[str, list[float]]) -> tuple[Any, ...]:
    made = list(driven(world, seconds))
    seen = np.array([curvature_per_m(frame) for frames, _, _ in made for frame in frames])
    told = np.array([TURNS[control] for frames, control, _ in made for _ in frames])
    took = [1e3 * spent for _, _, spent in made]
    samples[f"{name}/latent_ms"] = took
    lag, correlation = delay(seen, told)
    obeyed, judged = obedience(seen, told, lag, world.video.fps // 2)
    return len(made), quantile(took, 0.5), lag, correlation, None if obeyed is None else f"{obeyed:.0%}", judged


def driven(world: World, seconds: int) -> Iterator[tuple[list[Array], str, float]]:
    """Frames of each latent, its control, and the seconds that it took."""
    schedule, told = world.schedule, Told(world.encode(PROMPT))
    count = seconds * world.video.fps * schedule.group // world.frames_at_once

    def control(frame: int) -> str:
        return HELD[frame % len(HELD)] if frame >= 0 else "D"

    def feed(frame: int) -> Condition:
        return Condition(frame + schedule.given, dict(world.condition(control(frame))))

    queue = world.queue(told, feed, SEED)
    queue.start(world.first(told, SEED, ("D",)))
    decode = world.decoder()
    left, since = count, time.perf_counter()
    while left:
        for latent in queue.run()[:left]:
            frames = [np.array(frame) for frame in decode(latent.latent[:, :, None])]
            yield frames, control(latent.number), time.perf_counter() - since
            left, since = left - 1, time.perf_counter()


def delay(seen: Array, told: Array) -> tuple[int, float]:
    """The shift of `told` at which it and what is seen go together best, and their correlation there."""
    found: Mapping[int, float] = {
        lag: _correlation(seen[lag:], told[: len(told) - lag]) for lag in range(min(LONGEST_LAG, len(seen) // 2) + 1)
    }
    best = max(found, key=lambda lag: found[lag])
    return best, found[best]


def obedience(seen: Array, told: Array, lag: int, settle: int) -> tuple[float | None, int]:
    """The share of frames that bend to the side they were told `lag` frames before, and had been for `settle` frames;
    and their number. None where there is none."""
    late = np.concatenate([np.zeros(lag), told[: len(told) - lag]])
    held = np.zeros(len(late), int)
    for i in range(1, len(late)):
        held[i] = held[i - 1] + 1 if late[i] == late[i - 1] else 0
    judged = (late != 0) & (held >= settle)
    if not judged.any():
        return None, 0
    return float(np.mean(np.sign(seen[judged]) == late[judged])), int(judged.sum())


def _correlation(a: Array, b: Array) -> float:
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
