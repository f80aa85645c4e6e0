"""What a reader wants to know first: who is faster, by how much, and where it is not so."""

from __future__ import annotations

from worldrt.benchmarks.results import Report
from worldrt.benchmarks.statistics import Interval, ratio_interval

OURS, WHOLE = "worldrt", "whole"


def sentences(report: Report) -> list[str]:
    """One on the whole run for each other contender, one on each stage that is not faster; none where nothing was run
    side by side. Intervals are of rounds, by the bootstrap."""
    stages = _stages(report)
    said = []
    for name in sorted({contender for contender, _ in stages} - {OURS}):
        if (OURS, WHOLE) not in stages or (name, WHOLE) not in stages:
            continue
        whole = _ratio(stages[name, WHOLE], stages[OURS, WHOLE])
        said.append(f"The whole run: {OURS} is {_words(whole, name)}.")
        slower = [
            f"{stage} ({_words(ratio, name)})"
            for (contender, stage), times in stages.items()
            if contender == name and stage != WHOLE and (OURS, stage) in stages
            for ratio in [_ratio(times, stages[OURS, stage])]
            if ratio.low <= 1
        ]
        said.append(f"Not shown to be faster than {name} at: {', '.join(slower) if slower else 'no stage'}.")
    return said


def _stages(report: Report) -> dict[tuple[str, str], tuple[float, ...]]:
    found = {}
    for name, values in report.samples.items():
        contender, slash, stage = name.partition("/")
        if slash and stage.endswith("_s"):
            found[contender, stage.removesuffix("_s")] = values
    return found


def _ratio(theirs: tuple[float, ...], ours: tuple[float, ...]) -> Interval:
    return ratio_interval(theirs, ours, paired=len(theirs) == len(ours))


def _words(ratio: Interval, name: str) -> str:
    span = f"95 % of rounds say {ratio.low:.2f} to {ratio.high:.2f}"
    if ratio.low > 1:
        return f"{ratio.value:.2f} times as fast as {name} ({span})"
    if ratio.high < 1:
        return f"SLOWER than {name}, {ratio.value:.2f} times as fast ({span})"
    return f"not told apart from {name}: {ratio.value:.2f} times as fast ({span})"
