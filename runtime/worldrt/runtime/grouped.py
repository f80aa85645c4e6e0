"""Jobs of a batch that are made together: one call of the denoiser for each step serves several."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from worldrt.engine.errors import WorldrtError
from worldrt.runtime import inputs
from worldrt.runtime.batch_file import Item
from worldrt.runtime.generate import Generator, Run
from worldrt.runtime.jobs import Job
from worldrt.runtime.observer import Cancelled, Observer
from worldrt.runtime.pipelines.base import Frame
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.pipelines.text2world import Text2World
from worldrt.runtime.pipelines.video2world import Video2World
from worldrt.runtime.results import Result

T = TypeVar("T")


def groups(items: Iterable[Item], size: int) -> list[list[Item]]:
    """Items with equal settings side by side, at most `size` together, in the order of their first ones."""
    alike: dict[object, list[Item]] = {}
    for item in items:
        alike.setdefault(item.index if item.job is None else _key(item.job, item.index), []).append(item)
    return [same[i : i + size] for same in alike.values() for i in range(0, len(same), size)]


def _key(job: Job, index: int) -> object:
    """Equal for jobs that can be made together: all but texts and seed is the same. Films in chunks and edits are made
    one at a time."""
    request = job.request
    if request.num_chunks > 1 or request.edit_strength is not None or request.picture_edit_strength is not None:
        return index
    return replace(request, prompt="", negative_prompt=None, seed=0), job.given_frames


def make(
    generator: Generator, jobs: Sequence[Job], observer: Observer, *, overwrite: bool
) -> Iterator[Result | Exception]:
    """What becomes of each job, in their order. A job that fails, or is refused, does not hold up the others; where
    they cannot be made together, each is made by itself."""
    begun = [attempt(partial(generator.begin, job, observer)) for job in jobs]
    runs = [run for run in begun if isinstance(run, Run)]
    together = attempt(partial(_frames, generator, runs, observer)) if len(runs) > 1 else []
    if isinstance(together, Exception):
        if not isinstance(together, (WorldrtError, MemoryError, OSError)):
            traceback.print_exception(together, file=sys.stderr)  # a defect: it is shown whole
        together = []
    frames = iter(together)
    shared = observer.timings.share(max(1, len(runs)))
    for run in begun:
        if isinstance(run, Exception):
            yield run
            continue
        observer.timings = replace(shared, seconds=dict(shared.seconds))
        yield attempt(partial(_finished, generator, run, next(frames, None), overwrite))


def _frames(generator: Generator, runs: Sequence[Run], observer: Observer) -> list[Iterator[Frame]]:
    """The frames of each run: sampled now, decoded when they are asked for."""
    with observer:
        return _sampled(generator, runs, observer)


def _sampled(generator: Generator, runs: Sequence[Run], observer: Observer) -> list[Iterator[Frame]]:
    start, models, requests = time.perf_counter(), generator.models, [run.job.request for run in runs]
    if generator.task == "text2image":
        made = [iter([picture]) for picture in Text2Image(models).many(requests, observer)]
    elif generator.task == "text2world":
        in_turn = iter(runs)
        made = Text2World(models).many(requests, observer, lambda _, frame: generator.refined(next(in_turn), frame))
    else:
        given = [inputs.given(generator.task, run.job) for run in runs]
        refined = [generator.refined(run, frames) for run, frames in zip(runs, given, strict=True)]
        made = Video2World(models).many(refined, given, observer)
    observer.timings.add("total", time.perf_counter() - start)
    for run in runs:
        run.facts["made_together"] = len(runs)
    return made


def _finished(generator: Generator, run: Run, frames: Iterator[Frame] | None, overwrite: bool) -> Result:
    """`frames` are None where the run is not made yet."""
    if frames is None:
        return generator.run(run.job, run.observer, overwrite=overwrite)
    return generator.finish(run, frames, overwrite=overwrite)


def attempt(make: Callable[[], T]) -> T | Exception:
    """What is made, or the exception that stands in its way; but what ends a whole batch is raised."""
    try:
        return make()
    except (Cancelled, BrokenPipeError):
        raise
    except Exception as error:
        return error
