"""What a reader wants to know first: who is faster, by how much, and where it is not so."""

from __future__ import annotations

from worldrt.benchmarks.results import Report
from worldrt.benchmarks.statistics import Interval, ratio_interval

OURS, WHOLE = "worldrt", "whole"
LACKING = "Not measured"
"""The title of a table of contenders that were left out, and why."""
FRAMES, UNRELATED = "Frames against", "another video"
"""The title of the table of likeness, and the row of what shares nothing."""
OTHER_WAYS = {"int8": "with 8-bit weights", "torch": "with torch as its backend"}
"""Contenders that are worldrt, too."""


def sentences(report: Report) -> list[str]:
    """One on the whole run for each other contender, one on each stage that is not faster; none where nothing was run
    side by side. Intervals are of rounds, by the bootstrap."""
    stages = _stages(report)
    said = []
    for name in sorted({contender for contender, _ in stages} - {OURS, *OTHER_WAYS}):
        if (OURS, WHOLE) not in stages or (name, WHOLE) not in stages:
            continue
        theirs = stages[name, WHOLE]
        said.append(f"The whole run: {OURS} is {_words(_ratio(theirs, stages[OURS, WHOLE]), name)}.")
        for way, words in OTHER_WAYS.items():
            if (way, WHOLE) in stages:
                said.append(
                    f"The same {words}: {_words(_ratio(theirs, stages[way, WHOLE]), name)}{_likeness(report, way)}."
                )
        said.append(f"Not shown to be faster than {name} at: {_slower(stages, name) or 'no stage'}.")
    return said + [f"Not measured: {row[1]}." for made in report.tables if made.title == LACKING for row in made.rows]


def _likeness(report: Report, way: str) -> str:
    """How far its frames are from those in float32, and those of another video, where that was measured."""
    for made in report.tables:
        rows = {row[0]: row for row in made.rows}
        if made.title.startswith(FRAMES) and "median_dB" in made.columns and {way, UNRELATED} <= rows.keys():
            place = made.columns.index("median_dB")
            ours, other = rows[way][place], rows[UNRELATED][place]
            if ours is not None and other is not None:
                return (
                    f"; its frames are {ours:.1f} dB (PSNR) from those in float32, those of {UNRELATED} {other:.1f} dB"
                )
    return ""


def _slower(stages: dict[tuple[str, str], tuple[float, ...]], name: str) -> str:
    found = []
    for (contender, stage), times in stages.items():
        if contender == name and stage != WHOLE and (OURS, stage) in stages:
            ratio = _ratio(times, stages[OURS, stage])
            found += [f"{stage} ({_words(ratio, name)})"] if ratio.low <= 1 else []
    return ", ".join(found)


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
    span = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
    if ratio.low > 1:
        return f"{ratio.value:.2f} times as fast as {name} ({span})"
    if ratio.high < 1:
        return f"SLOWER than {name}, {ratio.value:.2f} times as fast ({span})"
    return f"not told apart from {name}: {ratio.value:.2f} times as fast ({span})"
