"""A report as Markdown."""

from __future__ import annotations

from typing import Any

from worldrt.benchmarks.machine import Machine
from worldrt.benchmarks.results import Report, Table


def markdown(report: Report) -> str:
    """Tables first, then what they were measured on."""
    parts = [f"# trt-bench {report.verb}", *map(_table, report.tables), _machine(report.machine), _settings(report)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    numeric = [any(_is_number(row[i]) for row in table.rows) for i in range(len(table.columns))]
    cells = [[_cell(value) for value in row] for row in table.rows]
    widths = [max(len(text) for text in column) for column in zip(table.columns, *cells, strict=True)]

    def line(row: list[str]) -> str:
        padded = (
            text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (max(w, 3) - 1)}{':' if right else '-'}" for w, right in zip(widths, numeric, strict=True)]
    rows = [line(list(table.columns)), f"| {' | '.join(rule)} |", *map(line, cells)]
    notes = [f"\n{note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", *rows, *notes])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return _number(value)
    return str(value).replace("|", "\\|")


def _number(value: float) -> str:
    """Three significant digits; no exponent between 0.001 and a million."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = next((d for bound, d in ((100, 0), (10, 1), (1, 2), (0.1, 3)) if abs(value) >= bound), 4)
    return f"{value:.{digits}f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _machine(machine: Machine) -> str:
    commit = f"{(machine.commit or 'unknown')[:12]}{' with uncommitted changes' if machine.dirty else ''}"
    lines = [
        f"- command: `{machine.command}`",
        f"- date: {machine.date}; commit: {commit}",
        f"- CPU: {machine.cpu}, {machine.cores} cores ({' '.join(machine.simd) or 'no SIMD flags known'}), "
        f"{machine.ram_bytes / 2**30:.1f} GiB of memory; load before the run: {machine.load:.2f}",
        f"- GPU: {'; '.join(machine.gpus) or 'none'}",
        f"- {machine.system}, Python {machine.python}",
        "- " + ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
    ]
    return "\n".join(["## Measured on", "", *lines])


def _settings(report: Report) -> str:
    return "Settings: " + ", ".join(f"{name} {_cell(value)}" for name, value in report.settings.items()) + "."
