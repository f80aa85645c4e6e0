"""Whether a result that is there is the one that a job would make."""

from __future__ import annotations

from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime import sidecar
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job
from worldrt.runtime.sinks.base import split_place


def finished(job: Job, generator: Generator, *, overwrite: bool) -> bool:
    """Whether a job need not be run: its result is there, and its sidecar says that it was made from the same request,
    input and models, past the same guard. Not where results are to be replaced."""
    note = job.sidecar
    if overwrite or note is None or not note.is_file() or not split_place(job.place)[1].exists():
        return False
    try:
        return _matches(sidecar.read(note), job, generator)
    except InputError:
        return False


def _matches(data: dict[str, Any], job: Job, generator: Generator) -> bool:
    return (
        data["task"] == generator.task
        and data["request"] == job.request
        and data["input"] == sidecar.input_of(job)
        and data["edit"] == sidecar.edit_of(job)
        and data.get("quality") == job.quality
        and bool(data.get("guardrail")) == (generator.guard is not None)
        and (data.get("refined_prompt") is not None) == generator.refines(job)
        and not sidecar.differs(data, generator.models)
    )
