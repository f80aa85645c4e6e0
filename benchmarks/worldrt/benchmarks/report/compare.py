"""Two results of the same verb: what became faster, slower, larger or smaller, and what only may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from worldrt.benchmarks.results import Report, Table
from worldrt.benchmarks.statistics import Interval, quantile, ratio_interval

HIGHER_IS_BETTER = ("fps", "dB", "db", "ssim")
MATTERS = 0.02
"""A change of less is none, however sure."""
FEWEST = 3
"""Samples on a side, below which nothing is said."""
Verdict = Literal["better", "WORSE", "no difference shown", "too few samples"]
NOTE = (
    "Ratios of medians, new over old, with the interval that holds 95 of 100 by the bootstrap. Better and worse: the "
    f"whole interval is on one side of 1 and the ratio is {MATTERS:.0%} away from it."
)


@dataclass(frozen=True)
class Change:
    """Of one quantity; its name ends in its unit."""

    name: str
    before: float
    after: float
    ratio: Interval | None
    verdict: Verdict


def changes(old: Report, new: Report) -> list[Change]:
    """Of every quantity that both have, in the order of the old one."""
    return [_change(name, old.samples[name], new.samples[name]) for name in old.samples if new.samples.get(name)]


def table(old: Report, new: Report) -> Table:
    """The changes, worst first among those that are sure."""
    found = sorted(changes(old, new), key=lambda c: (c.verdict != "WORSE", c.verdict != "better"))
    rows = tuple(
        (
            c.name,
            c.before,
            c.after,
            c.ratio and c.ratio.value,
            c.ratio and c.ratio.low,
            c.ratio and c.ratio.high,
            c.verdict,
        )
        for c in found
    )
    columns = ("quantity", "old", "new", "new / old", "95 % from", "to", "verdict")
    here, there = (f"{r.machine.date}, commit {(r.machine.commit or 'unknown')[:12]}" for r in (old, new))
    notes = [NOTE, f"Old: {here}. New: {there}."]
    if (old.machine.cpu, old.machine.gpus, old.machine.cores) != (new.machine.cpu, new.machine.gpus, new.machine.cores):
        notes.append("The two were measured on different machines.")
    return Table(f"Old against new: {new.verb}", columns, rows, tuple(notes))


def _change(name: str, before: tuple[float, ...], after: tuple[float, ...]) -> Change:
    old, new = quantile(before, 0.5), quantile(after, 0.5)
    if min(len(before), len(after)) < FEWEST or min(*before, *after) <= 0:
        return Change(name, old, new, None, "too few samples")
    ratio = ratio_interval(after, before)
    grown = ratio.low > 1 and ratio.value > 1 + MATTERS
    shrunk = ratio.high < 1 and ratio.value < 1 - MATTERS
    if not grown and not shrunk:
        return Change(name, old, new, ratio, "no difference shown")
    better = grown == name.rpartition("_")[2].endswith(HIGHER_IS_BETTER)
    return Change(name, old, new, ratio, "better" if better else "WORSE")
