"""The record beside a cached plan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.errors import WorldrtError
from worldrt.engine.plan_key import PlanKey
from worldrt.engine.plans import BuildReport
from worldrt.engine.schema import SchemaError, decode, encode, parse_json


@dataclass(frozen=True)
class Record:
    """What a plan was made of, what it is, and what its build took. `name` is that of the graph, for people.

    `created_s` is in seconds since 1970.
    """

    key: PlanKey
    name: str
    plan_sha256: str
    plan_bytes: int
    created_s: float
    report: BuildReport


def write_record(path: Path, record: Record) -> None:
    """Raises `OSError`."""
    path.write_text(json.dumps(encode(record), indent=1) + "\n", encoding="utf-8")


def read_record(path: Path) -> Record | None:
    """None where it is missing, damaged, or of another version of worldrt."""
    try:
        return decode(Record, parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, SchemaError, WorldrtError):
        return None
