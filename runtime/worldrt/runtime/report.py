"""What `trt-run` prints of results: a line each, a table of a batch or of a benchmark."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from worldrt.runtime.batch import Outcome
from worldrt.runtime.benchmark import COLUMNS

WIDTH = 160  # where no terminal says its own
LONGEST = 400


def plain(text: str) -> str:
    """Text from outside for a terminal: what is not printable as escapes, and not without end."""
    shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


def line(result: Mapping[str, Any]) -> str:
    """One result in one line."""
    return (
        f"{plain(result['path'].rstrip(':'))}: {result['frames']} frame(s), {result['width']}x{result['height']}, "
        f"{result['timings_s']['total']:.1f} s"
    )


def outcome_line(outcome: Outcome, done: int, count: int) -> str:
    """One item of a batch in one line, the number `done` of `count`."""
    text = line(outcome.result) if outcome.result else f"{plain(outcome.place)}: {outcome.status}"
    return f"{done}/{count} [{outcome.index}] {text}" + (f": {plain(outcome.why)}" if outcome.why else "")


def batch_table(outcomes: Sequence[Outcome]) -> None:
    """Print what became of a batch."""
    rows = []
    for o in outcomes:
        seconds = f"{o.result['timings_s']['total']:.1f}" if o.result else ""
        rows.append((str(o.index), plain(o.place), o.status, seconds, plain(o.why)))
    counts = Counter(outcome.status for outcome in outcomes)
    _print(("item", "result", "status", "seconds", "why"), rows, right=("item", "seconds"))
    print(", ".join(f"{number} {status}" for status, number in counts.items()))


def benchmark_table(result: Mapping[str, Any]) -> None:
    """Print the times of a benchmark."""
    data = result["benchmark"]
    parts = list(data["stages_s"].items()) + [(f"{name}, a step", step) for name, step in data["steps_s"].items()]
    rows = [(name, str(at["count"]), *(f"{at[column]:.4f}" for column in COLUMNS)) for name, at in parts]
    print(f"seconds of {data['runs']} runs, after one to warm up")
    _print(("part", "count", *COLUMNS), rows, right=("count", *COLUMNS))


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH).print(table)
