"""The record beside a cached plan, and whether the two are sound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.content import file_hash
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


@dataclass(frozen=True)
class Entry:
    """What lies under one digest. `record` None: the record is missing or damaged."""

    digest: str
    plan: Path
    record: Record | None
    nbytes: int
    used_s: float


def write_record(path: Path, record: Record) -> None:
    """Raises `OSError`."""
    path.write_text(json.dumps(encode(record), indent=1) + "\n", encoding="utf-8")


def read_record(path: Path) -> Record | None:
    """None where it is missing, damaged, or of another version of worldrt."""
    try:
        return decode(Record, parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, SchemaError, WorldrtError):
        return None


def damage(entry: Entry, key: PlanKey | None = None) -> str | None:
    """What is wrong with an entry, or None. Reads the plan whole. With `key`, it must also be the plan of that key."""
    record = entry.record
    if record is None:
        return "its record is missing, damaged, or of another version of worldrt"
    if record.key.digest != entry.digest or (key is not None and record.key != key):
        return "its record is that of another plan"
    try:
        size = entry.plan.stat().st_size
        if size != record.plan_bytes:
            return f"{size} bytes instead of {record.plan_bytes}"
        return None if file_hash(entry.plan) == record.plan_sha256 else "its content has changed (sha256 differs)"
    except FileNotFoundError:
        return "the plan itself is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
