"""The sidecar: a JSON file beside a result that holds all it takes to make it again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Bundle, file_sha256
from worldrt.engine.errors import InputError
from worldrt.engine.schema import SchemaError, decode, encode, parse_json
from worldrt.runtime.changes import ChangeNote, as_json, equal, noted
from worldrt.runtime.execution_note import ExecutionNote, note_of
from worldrt.runtime.jobs import Job
from worldrt.runtime.models import Models
from worldrt.runtime.request import Request, Settings
from worldrt.runtime.timing import Timings

SCHEMA = 1
PACKAGES = ("worldrt", "numpy", "onnxruntime", "tokenizers", "av")
CONTENT = ("variant", "graphs", "files", "weights")  # of a bundle: what changes a result


@dataclass(frozen=True)
class Input:
    """What a run goes on from: a file by its absolute path and its hash, how many frames of it, read by what."""

    path: str
    frames: int
    reader: str = "media"
    sha256: str | None = None


def input_of(job: Job) -> Input | None:
    """Of a job, as its file is now."""
    path = job.input_path
    return None if path is None else Input(str(path.absolute()), job.given_frames, job.reader, file_sha256(path))


@dataclass(frozen=True)
class Edited:
    """What a run edits: a file by its absolute path and its hash."""

    path: str
    sha256: str


def edit_of(job: Job) -> Edited | None:
    """Of a job, as its file is now."""
    path = job.edit_path
    return None if path is None else Edited(str(path.absolute()), file_sha256(path))


def describe(task: str, job: Job, settings: Mapping[str, Settings], models: Models, timings: Timings) -> dict[str, Any]:
    """Plain JSON data. `settings` are the numbers that the request came to, by task."""
    return {
        "schema": SCHEMA,
        "task": task,
        "request": encode(job.request),
        "input": encode(input_of(job)),
        "edit": encode(edit_of(job)),
        "quality": job.quality,
        "settings": {name: asdict(value) for name, value in settings.items()},
        "bundles": [_identity(bundle) for bundle in models.bundles],
        "execution": encode(note_of(models.execution)),
        "changes": as_json(models.changes),
        "versions": {"python": platform.python_version(), "platform": platform.platform()} | versions(PACKAGES),
        "timings_s": timings.rounded(),
    }


def _identity(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    components = manifest.components().items()
    return {
        "folder": str(bundle.folder.absolute()),
        "weight_root": str(bundle.weight_root.absolute()),
        "family": manifest.family,
        "variant": manifest.variant,
        "graphs": {f"{n}/{g}": graph.sha256 for n, part in components for g, graph in part.graphs.items()},
        "files": dict(manifest.files),
        "weights": encode(manifest.weights.files),
    }


def differs(data: Mapping[str, Any], models: Models) -> bool:
    """Whether a sidecar, as it was read, was made from other graphs or weights than these."""
    now, then = [_identity(bundle) for bundle in models.bundles], data["bundles"]
    same = [[b.get(part) for part in CONTENT] for b in now] == [[b.get(part) for part in CONTENT] for b in then]
    return not same or not equal(noted(models.changes), data["changes"])


def other_files(data: Mapping[str, Any], job: Job) -> list[Path]:
    """The files that a job goes on from, or edits, under the names that a sidecar has, and hold something else now."""
    pairs = ((data["input"], input_of(job)), (data["edit"], edit_of(job)))
    return [
        Path(now.path)
        for then, now in pairs
        if then is not None and now is not None and then.path == now.path and then.sha256 not in (None, now.sha256)
    ]


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    return {name: found for name in packages if (found := version(name)) is not None}


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


_READ: dict[str, Any] = {  # what a run is repeated from
    "task": str,
    "bundles": tuple[Mapping[str, Any], ...],
    "execution": ExecutionNote,
    "input": Input | None,
    "edit": Edited | None,
    "changes": Mapping[str, ChangeNote] | None,
    "refined_prompt": str | None,
    "quality": int | None,
}


def read(path: Path) -> dict[str, Any]:
    """A sidecar's data, decoded where dataclasses stand for it. Raises `InputError` where it is not one."""
    try:
        data: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise InputError(f"{path}: sidecar of schema {data['schema']!r}; this worldrt reads {SCHEMA}")
        for key, kind in _READ.items():
            decode(kind, data.get(key), key)
        for bundle in data["bundles"]:
            decode(dict[str, str], {key: bundle.get(key) for key in ("folder", "weight_root")}, "bundles")
        notes = decode(dict[str, ChangeNote], data.get("changes", {}), "changes")
        return data | {
            "request": decode(Request, data["request"], "request"),
            "input": decode(Input | None, data.get("input"), "input"),  # type: ignore[arg-type]
            "edit": decode(Edited | None, data.get("edit"), "edit"),  # type: ignore[arg-type]
            "execution": decode(ExecutionNote, data["execution"], "execution"),
            "changes": notes,
        }
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, SchemaError) as error:
        raise InputError(f"{path}: not a sidecar of worldrt: {error}") from error
