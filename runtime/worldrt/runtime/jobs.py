"""A job: one result to make, and its place."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from worldrt.engine.errors import InputError
from worldrt.engine.files import check_place
from worldrt.runtime.request import Request
from worldrt.runtime.request_flags import request_of
from worldrt.runtime.sinks.base import split_place


@dataclass(frozen=True)
class Job:
    """One result to make. `input_path` is what it goes on from: its last `given_frames` frames, read by `reader`.

    `refined_prompt` is what a refiner made of the prompt in an earlier run; None lets the refiner, if any, make one.
    """

    request: Request
    place: str
    input_path: Path | None = None
    given_frames: int = 1
    reader: str = "media"
    refined_prompt: str | None = None

    @property
    def sidecar(self) -> Path | None:
        """The place of the sidecar; none for a result that is not kept. Raises `InputError` for an unknown kind."""
        kind, path = split_place(self.place)
        return None if kind == "null" else path.with_suffix(".json")


def job_of(args: argparse.Namespace) -> Job:
    """The job that the flags describe; with `--batch_input_json`, what its items have in common."""
    return Job(
        request_of(args),
        args.save_path,
        getattr(args, "input_path", None),
        getattr(args, "num_conditional_frames", 1),
        getattr(args, "input_reader", "media"),
        getattr(args, "refined_prompt", None),
    )


def check_places(jobs: Iterable[Job], *, overwrite: bool) -> None:
    """Raises `OutputError` or `InputError` for results that cannot be put, all of them, where they should go."""
    taken: set[Path] = set()
    for job in jobs:
        if job.sidecar is None:
            continue
        for place in (job.sidecar, split_place(job.place)[1]):
            if place.absolute() in taken:
                raise InputError(f"{place}: two results would have this place")
            taken.add(place.absolute())
            check_place(place, overwrite=overwrite)
