"""A run of a benchmark as data: one JSON file with the machine, the settings, the tables and every sample.

The format is described in docs/results.md and, for other programs, by benchmarks/results/schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worldrt.benchmarks.machine import Machine
from worldrt.benchmarks.scrub import clean
from worldrt.engine.errors import InputError
from worldrt.engine.files import staged_file
from worldrt.engine.schema import SchemaError, decode, encode

SCHEMA = 2
READABLE = (1, 2)
"""Files of schema 1 have no note, no hashes and no figures."""
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
class Figure:
    """What is drawn. `series`: pairs of a label, or a place on the x axis, and a value, by the name of the series.

    `waterfall`: stages that follow each other. `histogram`: values, without labels. `roofline`: FLOP per byte and
    FLOP/s; the series `roof` has one pair, of the ridge. `scaling`: of a number of devices. `memory`: parts of a whole.
    """

    kind: Literal["waterfall", "histogram", "roofline", "scaling", "memory"]
    title: str
    x: str
    y: str
    series: Mapping[str, tuple[tuple[float | str, float], ...]]


@dataclass(frozen=True)
class Extra:
    """What a verb may add to its tables. `hashes`: of models, graphs and engines, by what they are of."""

    figures: tuple[Figure, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """`samples`: every measured value, by name; names end in their unit. `note`: what the reader must know."""

    schema: int
    verb: str
    machine: Machine
    settings: Mapping[str, Any]
    tables: tuple[Table, ...]
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    note: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()

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
    extra: Extra | None = None,
    note: str = "",
) -> Report:
    """A report of the present schema, without the folders of this machine."""
    kept = {name: tuple(float(f"{value:.6g}") for value in values) for name, values in (samples or {}).items()}
    more = extra or Extra()
    found = Report(SCHEMA, verb, machine, dict(settings), tuple(tables), kept, note, dict(more.hashes), more.figures)
    return clean(found)


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
        if isinstance(data, dict) and data.get("schema") not in READABLE:
            raise InputError(f"{path}: schema {data.get('schema')!r}; this worldrt reads {READABLE[0]} to {SCHEMA}")
        return decode(Report, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (SchemaError, ValueError) as error:
        raise InputError(f"{path}: not a result of trt-bench: {error}") from error
