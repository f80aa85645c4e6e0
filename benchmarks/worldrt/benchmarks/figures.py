"""Samples to figures."""

from __future__ import annotations

from collections.abc import Mapping

from worldrt.benchmarks.results import Figure
from worldrt.benchmarks.rounds import Samples
from worldrt.benchmarks.statistics import quantile

MIB = 2**20
WHOLE = "whole"


def waterfall(samples: Samples, times: Mapping[str, int]) -> Figure:
    """Medians of the stages, in the order in which they run; `times`: how often a stage is run, where not once."""
    series = {
        name: tuple((stage, times.get(stage, 1) * quantile(s, 0.5)) for stage, s in stages.items() if stage != WHOLE)
        for name, stages in samples.items()
    }
    return Figure("waterfall", "Where the time of a run goes", "seconds", "", series)


def histogram(samples: Samples, stage: str) -> Figure:
    """All rounds of a stage."""
    series = {name: tuple(("", 1e3 * value) for value in stages[stage]) for name, stages in samples.items()}
    return Figure("histogram", f"Rounds: {stage}", "milliseconds", "rounds", series)


def memory(peak_bytes: Mapping[str, int]) -> Figure:
    """The most that each process had."""
    series = {name: (("process", peak / MIB),) for name, peak in peak_bytes.items()}
    return Figure("memory", "Peak memory", "", "MiB", series)
