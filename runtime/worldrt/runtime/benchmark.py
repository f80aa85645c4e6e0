"""`--benchmark`: the same job again and again, and how long each part of it took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.results import Result
from worldrt.runtime.timing import Timings

MOST_RUNS = 10_000
COLUMNS = ("mean", "p50", "p90", "p99", "min", "max")


def check(runs: int | None) -> None:
    """Raises `InputError` for a number of runs that cannot be."""
    if runs is not None and not 1 <= runs <= MOST_RUNS:
        raise InputError(f"--benchmark: expected 1 to {MOST_RUNS} runs, got {runs}")


def measured(make: Callable[[bool], Result], runs: int) -> dict[str, Any]:
    """The last result as JSON data, with the times of `runs` runs after one that is not counted.

    `make` takes whether what is there may be replaced.
    """
    result = make(False)
    counted = []
    for _ in range(runs):
        result = make(True)
        counted.append(result.timings)
    stages = {name: [run.seconds.get(name, 0.0) for run in counted] for name in _names(counted, "seconds")}
    sampled = [
        name for name in _names(counted, "steps") if name.endswith("sampling")
    ]  # others share theirs with a sink
    steps = {name: [s for run in counted for s in run.steps.get(name, [])] for name in sampled}
    data = result.as_json()
    data["benchmark"] = {
        "warm_up_runs": 1,
        "runs": runs,
        "stages_s": {name: statistics(values) for name, values in stages.items()},
        "steps_s": {name: statistics(values) for name, values in steps.items()},
    }
    data["timings_s"] = {name: stage["mean"] for name, stage in data["benchmark"]["stages_s"].items()}
    return data


def _names(runs: Sequence[Timings], what: str) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in getattr(run, what)))


def statistics(values: Sequence[float]) -> dict[str, float]:
    """Of seconds: their number, and `COLUMNS`; percentiles lie between values, by linear interpolation."""
    at = np.percentile(values, [50, 90, 99])
    found = (np.mean(values), *at, min(values), max(values))
    return {"count": len(values)} | {name: round(float(value), 6) for name, value in zip(COLUMNS, found, strict=True)}
