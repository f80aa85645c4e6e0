"""A job: one result to make, and its place."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.errors import InputError, OutputError
from worldrt.engine.files import check_place
from worldrt.engine.schema import parse_json
from worldrt.runtime.request import Request
from worldrt.runtime.request_flags import request_of
from worldrt.runtime.sinks.base import split_place


@dataclass(frozen=True)
class Job:
    """One result to make. `input_path` is what it goes on from: its last `given_frames` frames, read by `reader`.
    `edit_path` is what it edits, read by the same.

    `refined_prompt` is what a refiner made of the prompt in an earlier run; None lets the refiner, if any, make one.
    `quality`, from 1 to 100, is that of a file that loses something; None leaves it to the sink.
    """

    request: Request
    place: str
    input_path: Path | None = None
    given_frames: int = 1
    reader: str = "media"
    refined_prompt: str | None = None
    edit_path: Path | None = None
    quality: int | None = None

    def __post_init__(self) -> None:
        """Places as they are held here, however a caller has them."""
        object.__setattr__(self, "place", os.fspath(self.place))
        for name in ("input_path", "edit_path"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path))

    @property
    def sidecar(self) -> Path | None:
        """The place of the sidecar; none for a result that is not kept. Raises `InputError` for an unknown kind."""
        kind, path = split_place(self.place)
        return None if kind == "null" else path.with_suffix(".json")

    @property
    def places(self) -> tuple[Path, ...]:
        """What is written: the sidecar and the result; nothing for a result that is not kept."""
        note = self.sidecar
        return () if note is None else (note, split_place(self.place)[1])

    def check_places(self, *, overwrite: bool) -> None:
        """Raises `OutputError` for places that cannot be written, or hold something that is not ours to replace."""
        for place in self.places:
            check_place(place, overwrite=overwrite)
        note = self.sidecar
        if note is not None and note.is_file() and not _is_sidecar(note):
            raise OutputError(f"{note}: it is no sidecar and is not replaced by one; move it, or give another place")


def spot(path: Path) -> Path:
    """The same for every spelling of a place: `a/../b`, a folder by its link."""
    return path.parent.resolve() / path.name


def _is_sidecar(path: Path) -> bool:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"schema", "task", "request"} <= data.keys()


def job_of(args: argparse.Namespace) -> Job:
    """The job that the flags describe; with `--batch_input_json`, what its items have in common."""
    return Job(
        request=request_of(args),
        place=args.save_path,
        input_path=getattr(args, "input_path", None),
        given_frames=getattr(args, "num_conditional_frames", 1),
        reader=getattr(args, "input_reader", "media"),
        refined_prompt=getattr(args, "refined_prompt", None),
        edit_path=getattr(args, "input_video_path", None),
        quality=getattr(args, "quality", None),
    )


def check_quality(quality: int | None) -> None:
    """Raises `InputError` for a number that is none."""
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"--quality: expected 1 to 100, got {quality}")


def check_places(jobs: Iterable[Job], *, overwrite: bool) -> None:
    """Raises `OutputError` or `InputError` for results that cannot be put, all of them, where they should go."""
    taken: set[Path] = set()
    for job in jobs:
        for place in job.places:
            if spot(place) in taken:
                raise InputError(f"{place}: two results would have this place")
            taken.add(spot(place))
        job.check_places(overwrite=overwrite)
