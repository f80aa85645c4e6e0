"""A report as Markdown."""

from __future__ import annotations

from typing import Any

from worldrt.benchmarks.results import Report, Table


def markdown(report: Report) -> str:
    """Tables first, then what they were measured on."""
    parts = [f"# trt-bench {report.verb}", *map(table, report.tables), _machine(report), _settings(report)]
    return "\n\n".join(parts) + "\n"


def table(made: Table, level: int = 2) -> str:
    """A table below a heading, in columns that are aligned in plain text, too."""
    numeric = [any(is_number(row[i]) for row in made.rows) for i in range(len(made.columns))]
    cells = [[cell(value) for value in row] for row in made.rows]
    widths = [max(len(text) for text in column) for column in zip(made.columns, *cells, strict=True)]

    def line(row: list[str]) -> str:
        padded = (
            text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (max(w, 3) - 1)}{':' if right else '-'}" for w, right in zip(widths, numeric, strict=True)]
    rows = [line(list(made.columns)), f"| {' | '.join(rule)} |", *map(line, cells)]
    notes = [f"\n{note}" for note in made.notes]
    return "\n".join([f"{'#' * level} {made.title}", "", *rows, *notes])


def cell(value: Any) -> str:
    """A cell as text; numbers with three significant digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return _number(value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> str:
    """Three significant digits; no exponent between 0.001 and a million."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = next((d for bound, d in ((100, 0), (10, 1), (1, 2), (0.1, 3)) if abs(value) >= bound), 4)
    return f"{value:.{digits}f}"


def is_number(value: Any) -> bool:
    """Whether a cell is to stand at the right."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _machine(report: Report) -> str:
    return "\n".join(["## Measured on", "", *(f"- {line}" for line in identity(report))])


def identity(report: Report) -> list[str]:
    """Machine, software, models and engines, a line each; the command stands in backticks."""
    machine = report.machine
    commit = f"{(machine.commit or 'unknown')[:12]}{' with uncommitted changes' if machine.dirty else ''}"
    simd, memory = " ".join(machine.simd) or "no SIMD flags known", machine.ram_bytes / 2**30
    lines = [
        f"command: `{machine.command}`",
        f"date: {machine.date}; commit: {commit}",
        f"CPU: {machine.cpu}, {machine.cores} cores ({simd}), {memory:.1f} GiB of memory; "
        f"load before the run: {machine.load:.2f}",
        f"GPU: {'; '.join(machine.gpus) or 'none'}",
        f"{machine.system}, Python {machine.python}",
        ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        *(f"{name}: {value[:16]}" for name, value in report.hashes.items()),
    ]
    return lines + ([f"note: {report.note}"] if report.note else [])


def _settings(report: Report) -> str:
    return "Settings: " + ", ".join(f"{name} {cell(value)}" for name, value in report.settings.items()) + "."
