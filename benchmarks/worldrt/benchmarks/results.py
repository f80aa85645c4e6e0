"""A run of a benchmark as data: one JSON file with the machine, the settings, the tables and every sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldrt.benchmarks.machine import Machine
from worldrt.engine.errors import InputError
from worldrt.engine.files import staged_file
from worldrt.engine.schema import SchemaError, decode, encode

SCHEMA = 1
FAILED = ("failed",)
"""The columns of the table of a part that failed; its one cell says why."""


@dataclass(frozen=True)
class Table:
    """What is printed. Units stand in the column names; a cell is a text, a number, or None for nothing measured."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """`samples`: every measured value, by name; names end in their unit."""

    schema: int
    verb: str
    machine: Machine
    settings: Mapping[str, Any]
    tables: tuple[Table, ...]
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """`20261121T060102Z-amd-epyc-2c-cpu.json`"""
        date = "".join(c for c in self.machine.date.partition("+")[0] if c.isalnum())
        return f"{date}Z-{self.machine.slug}-{self.verb}.json"


def report(
    verb: str,
    machine: Machine,
    settings: Mapping[str, Any],
    tables: Sequence[Table],
    samples: Mapping[str, Sequence[float]] | None = None,
) -> Report:
    """A report of the present schema."""
    kept = {name: tuple(float(f"{value:.6g}") for value in values) for name, values in (samples or {}).items()}
    return Report(SCHEMA, verb, machine, dict(settings), tuple(tables), kept)


def write(report: Report, folder: Path) -> Path:
    """Write the JSON file of a report into a folder, in place of an earlier state of it. Raises `OutputError`."""
    path = folder / report.file_name
    with staged_file(path, overwrite=True) as part:
        part.write_text(json.dumps(encode(report), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Report:
    """Raises `InputError` for a file that is not a report."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("schema") != SCHEMA:
            raise InputError(f"{path}: schema {data.get('schema')!r}; this worldrt reads {SCHEMA}")
        return decode(Report, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (SchemaError, ValueError) as error:
        raise InputError(f"{path}: not a result of trt-bench: {error}") from error
