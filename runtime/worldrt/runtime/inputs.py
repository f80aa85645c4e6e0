"""The files that a job goes on from, or edits, and the frames that are taken of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from worldrt.engine.errors import InputError
from worldrt.runtime.images import cover
from worldrt.runtime.jobs import Job, spot
from worldrt.runtime.pipelines.base import Frame
from worldrt.runtime.request import Settings
from worldrt.runtime.sources.base import check_file, open_source, stacked


def edited(task: str, job: Job) -> Path | None:
    """What is edited, if anything is: for video2world its input, where no other clip is named."""
    if job.request.edit_strength is None and job.request.picture_edit_strength is None:
        return None
    return job.edit_path or (job.input_path if task == "video2world" else None)


def check(task: str, job: Job) -> None:
    """Raises `InputError` for files that are missing, or of no use."""
    clip, request = edited(task, job), job.request
    if clip is None and (request.edit_strength is not None or request.picture_edit_strength is not None):
        raise InputError("--edit_strength: what is to be edited is missing; name it with --input_video_path")
    if clip is None and job.edit_path is not None:
        raise InputError("--input_video_path: it is what --edit_strength edits; give a strength, or leave it out")
    if task == "video2world" and job.input_path is None and clip is None:
        raise InputError("--input_path: a picture or a video to go on from is missing")
    for path in (job.input_path, clip):
        if path is not None:
            check_file(path)
            if spot(path) in map(spot, job.places):
                raise InputError(f"{path}: the result would replace what it is made from; give another place")


def given(task: str, job: Job) -> Frame:
    """The frames that a video goes on from, uint8 RGB (t, h, w, 3): the last ones of its input, but the first ones of a
    clip that is edited itself."""
    clip = edited(task, job)
    path = job.input_path or clip
    assert path is not None
    source = open_source(path, job.reader)
    return source.first(job.given_frames) if path == clip else source.last(job.given_frames)


def clip_of(task: str, job: Job, settings: Settings) -> Frame | None:
    """The first frames of what is edited, as many as the video has, or all where it has fewer: uint8 RGB (t, h, w, 3).
    Where the video alone is made of them they are scaled as they are read, so that a large film takes no more memory
    than a small one."""
    path = edited(task, job)
    if path is None:
        return None
    frames: Iterator[Frame] = islice(open_source(path, job.reader).frames(), settings.num_frames)
    if task == "video2world":
        frames = (cover(frame[None], settings.width, settings.height)[0] for frame in frames)
    return stacked(path, frames, 1)
