"""`--lora` and `--dit_path` of a weight file: which denoisers of a run take other weights than their checkpoint's."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import FILE_NAME
from worldrt.engine.cache_folder import default_folder
from worldrt.engine.content import MEMO, ContentHashes
from worldrt.engine.errors import InputError
from worldrt.engine.lora import parse_choice
from worldrt.engine.overlay import WeightChange, weight_files
from worldrt.engine.schema import encode

DIT_FLAGS = {"dit_path": "", "dit_path_text2image": "text2image", "dit_path_video2world": "video2world"}


@dataclass(frozen=True)
class _LoraNote:
    path: str
    scale: float
    sha256: str


@dataclass(frozen=True)
class ChangeNote:
    """A change in a sidecar: absolute paths, the hash of each LoRA file, and those of the weight files by name."""

    path: str | None = None
    loras: tuple[_LoraNote, ...] = ()
    weights_sha256: Mapping[str, str] = field(default_factory=dict)


def is_bundle(place: str) -> bool:
    """Whether a `--dit_path` names a bundle, and not weight files."""
    return os.path.isfile(Path(place) / FILE_NAME)


def changes_of(args: argparse.Namespace) -> dict[str, WeightChange]:
    """The changes that the flags ask for, by task. LoRAs, and a `--dit_path` that names no task, are for the denoiser
    that makes the result: of text2world that is video2world. Raises `InputError`."""
    result = "video2world" if args.verb == "text2world" else args.verb
    paths: dict[str, Path] = {}
    for flag, task in DIT_FLAGS.items():
        place = getattr(args, flag)
        if place and not is_bundle(place):
            if task and task != args.verb and args.verb != "text2world":
                raise InputError(f"--{flag}: {args.verb} does not run a model of {task}; leave it out")
            if (task or result) in paths:
                raise InputError(f"--{flag}: the weights of {task or result} are named twice")
            weight_files(Path(place))
            paths[task or result] = Path(place)
    loras = tuple(parse_choice(text) for text in args.lora)
    made = {task: WeightChange(path) for task, path in paths.items()}
    if loras:
        made[result] = WeightChange(paths.get(result), loras)
    return made


def noted(changes: Mapping[str, WeightChange]) -> dict[str, ChangeNote]:
    """What a sidecar says of changes. Raises `CheckpointError` where a file cannot be read."""
    hashes = _hashes()
    made = {task: _note(change, hashes) for task, change in changes.items()}
    hashes.save()
    return made


def _hashes() -> ContentHashes:
    """Fine-tunes of one model have equal headers, so all of a file is hashed; beside kept plans hashes are kept too."""
    with suppress(InputError):
        if default_folder().is_dir():
            return ContentHashes(default_folder() / MEMO)
    return ContentHashes()


def _note(change: WeightChange, hashes: ContentHashes) -> ChangeNote:
    files = () if change.path is None else weight_files(change.path)
    return ChangeNote(
        None if change.path is None else str(change.path.absolute()),
        tuple(_LoraNote(str(lora.path.absolute()), lora.scale, hashes.of(lora.path, 0, None)) for lora in change.loras),
        {path.name: hashes.of(path, 0, None) for path in files},
    )


def equal(now: Mapping[str, ChangeNote], then: Mapping[str, ChangeNote]) -> bool:
    """Whether two notes are of the same weights. Notes that older versions made have no hashes of weights."""
    return now.keys() == then.keys() and all(
        (note if then[task].weights_sha256 else replace(note, weights_sha256={})) == then[task]
        for task, note in now.items()
    )


def repeat(args: argparse.Namespace, notes: Mapping[str, ChangeNote]) -> None:
    """Ask for the changes of a sidecar, unless the flags ask for some."""
    if args.lora or any(getattr(args, flag) for flag in DIT_FLAGS):
        return
    for task, note in notes.items():
        setattr(args, f"dit_path_{task}", note.path or "")
        args.lora += [f"{lora.path}:{lora.scale!r}" for lora in note.loras]


def as_json(changes: Mapping[str, WeightChange]) -> dict[str, Any]:
    """`noted` as plain JSON data."""
    data: dict[str, Any] = encode(noted(changes))
    return data
