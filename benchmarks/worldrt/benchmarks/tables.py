"""Samples to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.rounds import Samples
from worldrt.benchmarks.statistics import ratio_interval, ratios, summarize

MIB = 2**20


def stages(samples: Samples, title: str = "Time by stage", notes: Sequence[str] = ()) -> Table:
    """Milliseconds by stage and contender."""
    rows = []
    for stage in _stages(samples):
        for name, of_stage in samples.items():
            s = summarize([1e3 * seconds for seconds in of_stage[stage]])
            rows.append((stage, name, s.count, s.minimum, s.median, s.p90, s.p95, s.p99, s.maximum))
    columns = ("stage", "contender", "rounds", "min_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")
    return Table(title, columns, tuple(rows), tuple(notes))


def speedups(samples: Samples, baseline: str) -> Table:
    """How many times faster than the baseline: the ratio of each round, and the ratio of the best times.

    The best times are what the machine can do; the ratios of rounds show how much of it noise may be.
    """
    rows = []
    for stage in _stages(samples):
        slow = samples[baseline][stage]
        for name, of_stage in samples.items():
            if name != baseline:
                s, i = ratios(slow, of_stage[stage]), ratio_interval(slow, of_stage[stage], paired=True)
                best = min(slow) / min(of_stage[stage])
                rows.append((stage, name, s.median, i.low, i.high, s.minimum, s.maximum, best))
    columns = ("stage", "contender", "median", "95 % from", "to", "min", "max", "best / best")
    return Table(f"Times faster than {baseline}, round by round", columns, tuple(rows))


def memory(
    peak_bytes: Mapping[str, int], open_s: Mapping[str, float], baseline: str, notes: Sequence[str] = ()
) -> Table:
    """Peak resident memory of each process, interpreter and libraries included."""
    base = peak_bytes.get(baseline)
    rows = [(name, peak / MIB, peak / base if base else None, open_s[name]) for name, peak in peak_bytes.items()]
    return Table("Peak memory", ("contender", "peak_MiB", f"of {baseline}", "open_s"), tuple(rows), tuple(notes))


def flat(samples: Samples) -> dict[str, list[float]]:
    """For the report: `contender/stage_s`."""
    return {f"{name}/{stage}_s": values for name, stages in samples.items() for stage, values in stages.items()}


def _stages(samples: Samples) -> list[str]:
    return list(next(iter(samples.values())))
