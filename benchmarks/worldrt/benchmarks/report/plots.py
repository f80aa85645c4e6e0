"""Figures as SVG, drawn by matplotlib, to stand inside a page: no fonts, no scripts, no references to anything."""

from __future__ import annotations

import importlib
import io
import re
from typing import Any

from worldrt.benchmarks.results import Figure
from worldrt.engine.errors import InputError

WIDTH_IN, HEIGHT_IN = 4.5, 2.9
COLOURS = ("#1f6f8b", "#d9822b", "#7a5195", "#5b8c5a", "#b03a48", "#666666")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "worldrt",
    "text.parse_math": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
LONGEST = 40
"""Characters of a label."""


def draw(figure: Figure) -> str:
    """An `<svg>` element. Raises `InputError` where matplotlib is not installed."""
    try:
        matplotlib, figures = importlib.import_module("matplotlib"), importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise InputError("trt-bench report: needs matplotlib; pip install 'worldrt[bench]'") from error
    with matplotlib.rc_context(STYLE | {"axes.prop_cycle": matplotlib.cycler(color=COLOURS)}):
        canvas = figures.Figure(figsize=(WIDTH_IN, HEIGHT_IN))
        axes = canvas.add_subplot()
        KINDS[figure.kind](axes, figure)
        axes.set_xlabel(_label(figure.x))
        axes.set_ylabel(_label(figure.y))
        written = io.StringIO()
        canvas.savefig(written, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)


def _waterfall(axes: Any, figure: Figure) -> None:
    """A line for each stage of each series, that begins where the one before has ended."""
    labels, place = [], 0.0
    for number, (name, pairs) in enumerate(figure.series.items()):
        begin = 0.0
        for stage, value in pairs:
            axes.barh(place, value, left=begin, height=0.8, color=COLOURS[number % len(COLOURS)])
            labels.append((place, _label(f"{name}: {stage}")))
            begin, place = begin + value, place + 1
        place += 0.6
    axes.set_yticks([at for at, _ in labels], [text for _, text in labels])
    axes.invert_yaxis()


def _histogram(axes: Any, figure: Figure) -> None:
    values = {name: [value for _, value in pairs] for name, pairs in figure.series.items() if pairs}
    every = [value for found in values.values() for value in found]
    bins = min(40, max(8, len(every) // 3))
    span = (min(every), max(every)) if every and min(every) < max(every) else None
    for name, found in values.items():
        axes.hist(found, bins=bins, range=span, alpha=0.6, label=_label(name))
    axes.legend()


def _roofline(axes: Any, figure: Figure) -> None:
    points = [(float(x), y) for name, pairs in figure.series.items() if name != "roof" for x, y in pairs]
    for ridge, peak in figure.series.get("roof", ()):
        low = min([float(ridge), *(x for x, _ in points)]) / 4
        high = max([float(ridge), *(x for x, _ in points)]) * 4
        axes.plot([low, float(ridge), high], [peak * low / float(ridge), peak, peak], color="#444444", linewidth=1)
    for name, pairs in figure.series.items():
        if name != "roof":
            axes.scatter([float(x) for x, _ in pairs], [y for _, y in pairs], s=28, label=_label(name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(fontsize=7)


def _scaling(axes: Any, figure: Figure) -> None:
    counts = sorted({float(x) for pairs in figure.series.values() for x, _ in pairs})
    for name, pairs in figure.series.items():
        alone = len({x for x, _ in pairs}) == 1
        axes.plot(
            [float(x) for x, _ in pairs],
            [y for _, y in pairs],
            marker="D" if alone else "o",
            linestyle="" if alone else "-",
            label=_label(name),
        )
    axes.plot(counts, counts, color="#bbbbbb", linestyle="--", linewidth=1, label="ideal")
    axes.set_xticks(counts, [f"{count:g}" for count in counts])
    axes.legend(fontsize=7)


def _memory(axes: Any, figure: Figure) -> None:
    """A bar for each series, its parts on top of each other."""
    names = list(figure.series)
    parts = list(dict.fromkeys(str(part) for pairs in figure.series.values() for part, _ in pairs))
    below = [0.0] * len(names)
    for number, part in enumerate(parts):
        heights = [sum(value for label, value in figure.series[name] if str(label) == part) for name in names]
        axes.bar(range(len(names)), heights, 0.6, below, color=COLOURS[number % len(COLOURS)], label=_label(part))
        below = [b + h for b, h in zip(below, heights, strict=True)]
    axes.set_xticks(range(len(names)), [_label(name) for name in names])
    axes.legend(fontsize=7)


def _label(text: Any) -> str:
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


KINDS = {
    "waterfall": _waterfall,
    "histogram": _histogram,
    "roofline": _roofline,
    "scaling": _scaling,
    "memory": _memory,
}
