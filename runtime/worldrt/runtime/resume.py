"""Where a film of several chunks keeps what it has finished, and what that belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from worldrt.runtime import sidecar
from worldrt.runtime.jobs import Job
from worldrt.runtime.keep import Keep, KeepInFolder
from worldrt.runtime.models import Models
from worldrt.runtime.request import Settings
from worldrt.runtime.sinks.base import split_place
from worldrt.runtime.timing import Timings


def keep_for(
    task: str,
    job: Job,
    settings: Mapping[str, Settings],
    models: Models,
    say: Callable[[str], None],
    *,
    refines: bool = False,
) -> AbstractContextManager[Keep]:
    """Keeps beside the result, `out.mp4.chunks`; a single clip, and a result that goes nowhere, keep nothing.
    `refines`: the prompt is refined in this run.

    Raises `InputError` where another run's chunks are there.
    """
    kind, path = split_place(job.place)
    if kind == "null" or all(values.num_chunks == 1 for values in settings.values()):
        return nullcontext(Keep())
    run = _identity(task, job, settings, models) | {"refined": job.refined_prompt or refines}
    return KeepInFolder(path.with_name(f"{path.name}.chunks"), run, say)


def _identity(task: str, job: Job, settings: Mapping[str, Settings], models: Models) -> dict[str, Any]:
    """What changes the latents: of files their content and not their place, and not the device, so that a run may be
    finished elsewhere."""
    facts = sidecar.describe(task, job, settings, models, Timings())
    facts["input"] = facts["input"] and {key: value for key, value in facts["input"].items() if key != "path"}
    facts["edit"] = facts["edit"] and facts["edit"]["sha256"]
    facts["bundles"] = [{key: bundle[key] for key in sidecar.CONTENT} for bundle in facts["bundles"]]
    kept = ("task", "request", "settings", "input", "edit", "bundles", "changes")
    run: dict[str, Any] = json.loads(json.dumps({key: facts[key] for key in kept}))
    return run
