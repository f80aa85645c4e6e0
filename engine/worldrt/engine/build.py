"""Making engine plans, each in a process of its own: whatever the library does there, this process goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldrt.engine.child import call_in_child
from worldrt.engine.files import staged_file
from worldrt.engine.network import Finding
from worldrt.engine.plans import BuildJob, BuildReport
from worldrt.engine.schema import decode, encode

CHILD = "worldrt.engine.build_child"
Progress = Callable[[str, float], None]
"""Called with what the builder is at and the part of a plan that is done, 0 to 1. May raise: that cancels the build."""


@dataclass(frozen=True)
class Order:
    """What the child is asked for: a plan at `output`, or (None) only the nodes that stand in its way."""

    job: BuildJob
    output: Path | None = None
    timing_cache: Path | None = None


def build_plan(
    job: BuildJob, output: Path, *, progress: Progress | None = None, timing_cache: Path | None = None
) -> BuildReport:
    """Build a plan into the file `output`, which appears whole or not at all.

    `timing_cache` is a file that TensorRT remembers its measurements in from build to build; TensorRT-RTX measures
    nothing. Raises `UnsupportedError` for nodes or options that the library lacks, `BackendError` where it is absent,
    too old, refuses the graph, crashes or runs out of memory, `OutputError` where the plan cannot be written. Ctrl-C
    ends the build.
    """
    output = output.absolute()
    with staged_file(output, overwrite=True) as part:
        made = _ask(
            Order(_absolute(job), part, timing_cache and timing_cache.absolute()), f"building {job.name}", progress
        )
    return decode(BuildReport, made)


def check_job(job: BuildJob) -> tuple[Finding, ...]:
    """The nodes of a job's graph that its library cannot take, found without building. Errors as of `build_plan`."""
    return decode(tuple[Finding, ...], _ask(Order(_absolute(job)), f"checking {job.name}", None))


def _ask(order: Order, what: str, progress: Progress | None) -> Any:
    def heard(message: Mapping[str, Any]) -> None:
        if progress is not None and message["kind"] == "progress":
            progress(message["text"], message["done"])

    return call_in_child(CHILD, encode(order), f"{order.job.library}: {what}", heard)


def _absolute(job: BuildJob) -> BuildJob:
    return replace(job, path=job.path.absolute(), weight_root=job.weight_root.absolute())
