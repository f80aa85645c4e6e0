"""What `text2world`, `text2image` and `video2world` do with a job: texts, frames, file, sidecar."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from worldrt.engine.files import staged_file
from worldrt.runtime import inputs, sidecar
from worldrt.runtime.jobs import Job, check_quality
from worldrt.runtime.keep import Keep
from worldrt.runtime.long import prompts_of
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.parallel.checks import check_settings
from worldrt.runtime.pipelines.base import Frame
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.pipelines.text2world import Text2World
from worldrt.runtime.pipelines.video2world import Video2World
from worldrt.runtime.request import Request, Settings
from worldrt.runtime.results import Result
from worldrt.runtime.resume import keep_for
from worldrt.runtime.safety.base import Guard, PixelFormat
from worldrt.runtime.sinks.base import VideoFormat, open_sink


class Refiner(Protocol):
    """What writes a prompt anew, after a look at the frames that the video goes on from: uint8 RGB (t, h, w, 3)."""

    def refine(self, prompt: str, frames: Frame | None) -> str: ...

    def unload(self) -> None: ...


@dataclass
class Run:
    """A job on its way: what becomes known while it is made, and is kept in the sidecar."""

    job: Job
    settings: Mapping[str, Settings]
    observer: Observer
    facts: dict[str, Any] = field(default_factory=dict)
    keep: Keep = field(default_factory=Keep)


class Generator:
    """Makes jobs of one task with models that stay loaded."""

    def __init__(
        self, task: str, models: Models, *, guard: Guard | None = None, refiner: Refiner | None = None
    ) -> None:
        self.task, self.models, self.guard, self.refiner = task, models, guard, refiner

    @property
    def tasks(self) -> tuple[str, ...]:
        """Of the models that run."""
        return ("text2image", "video2world") if self.task == "text2world" else (self.task,)

    def refines(self, job: Job) -> bool:
        """Whether a job's prompt is refined. Chunks that have prompts of their own keep them."""
        return self.refiner is not None and self.task != "text2image" and not job.request.chunk_prompts

    def check_models(self) -> None:
        """Raises `InputError` where a model is missing, whatever the job."""
        for task in self.tasks:
            self.models.opener(task)

    def settings(self, job: Job) -> dict[str, Settings]:
        """What a job comes to, by model; raises `InputError`."""
        found = self._settings(job)
        if self.models.execution.ranks is not None:
            for task, settings in found.items():
                check_settings(self.models, task, settings, self.models.execution.ranks)
        return found

    def _settings(self, job: Job) -> dict[str, Settings]:
        inputs.check(self.task, job)
        check_quality(job.quality)
        if self.task == "text2world":
            return Text2World(self.models).settings(job.request)
        if self.task == "text2image":
            return {self.task: Text2Image(self.models).settings(job.request)}
        return {self.task: Video2World(self.models).settings(job.request, job.given_frames)}

    def run(self, job: Job, observer: Observer | None = None, *, overwrite: bool = False) -> Result:
        """Make the frames and put them in their place, with a sidecar. Everything is checked before any sampling.

        Raises `InputError`, `OutputError`, or `BlockedError`, and whatever the observer raises; then nothing is left
        but finished chunks of a film.
        """
        run = self.begin(job, observer or Observer())
        return self.finish(run, self._frames(run), overwrite=overwrite)

    def begin(self, job: Job, observer: Observer) -> Run:
        """A job whose request and texts have been looked at. Raises what stands in its way."""
        run = Run(job, self.settings(job), observer)
        if self.guard is not None:
            with observer.stage("guardrail"):
                for text in prompts_of(job.request):
                    self.guard.check_text(text)
        return run

    def finish(self, run: Run, frames: Iterator[Frame], *, overwrite: bool) -> Result:
        """Put frames, which may be made only now, in their place, with a sidecar."""
        video, note = self._format(run), run.job.sidecar
        run.job.check_places(overwrite=overwrite)
        refines, warn = self.refines(run.job), run.observer.warn
        keeping = keep_for(self.task, run.job, run.settings, self.models, warn, refines=refines)
        with keeping as run.keep, _closed(frames), self._staged(note, overwrite) as part:
            facts = self._write(run, frames, video, overwrite)
            if part is not None:
                facts["timings_s"] = run.observer.timings.rounded()
                text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
                part.write_bytes(text.encode("utf-8", "backslashreplace"))  # paths that are not UTF-8 as JSON's escapes
        return Result(run.job.place, note, video, run.observer.timings)

    def _format(self, run: Run) -> VideoFormat:
        """Of the result: that of the last model."""
        task, last = list(run.settings.items())[-1]
        pixels = self.models.vae(task).spec.pixel_format
        return VideoFormat(last.width, last.height, last.fps, last.total_frames, pixels, run.job.quality)

    def _staged(self, note: Path | None, overwrite: bool) -> AbstractContextManager[Path | None]:
        return nullcontext() if note is None else staged_file(note, overwrite=overwrite)

    def _write(self, run: Run, frames: Iterator[Frame], video: VideoFormat, overwrite: bool) -> dict[str, Any]:
        """Put the frames in their place. What the sidecar holds is found before the result is there, for an input may
        take long to hash, and an interruption meanwhile would leave a result without a sidecar."""
        start, observer, record = time.perf_counter(), run.observer, self.models.execution.record
        unless_blocked = nullcontext() if record is None else record.unless_blocked()
        with observer, unless_blocked, open_sink(run.job.place, video, overwrite=overwrite) as write:
            for frame in self._watched(run, frames, video.pixel_format):
                with observer.stage("write"):
                    write(frame)
            with observer.stage("sidecar"):
                facts = {} if run.job.sidecar is None else self._facts(run)
            if self.models.execution.ranks is not None:  # a result is there with its sidecar, or not at all
                self.models.execution.ranks.control.settled = True
        observer.timings.add("total", time.perf_counter() - start)
        return facts

    def _watched(self, run: Run, frames: Iterator[Frame], pixel_format: PixelFormat) -> Iterable[Frame]:
        """Frames past the guard, and recorded where that is asked for."""
        passed = frames if self.guard is None else self.guard.frames(frames, pixel_format, run.observer)
        record = self.models.execution.record
        return passed if record is None else record.frames(passed)

    def _frames(self, run: Run) -> Iterator[Frame]:
        request, observer, keep = run.job.request, run.observer, run.keep
        edit = inputs.clip_of(self.task, run.job, list(run.settings.values())[-1])
        if self.task == "text2world":
            refine = partial(self.refined, run)
            yield from Text2World(self.models)(request, observer, refine, edit=edit, keep=keep)
        elif self.task == "text2image":
            yield Text2Image(self.models)(request, observer, edit=edit)
        else:
            given = inputs.given(self.task, run.job)
            yield from Video2World(self.models)(self.refined(run, given), given, observer, edit=edit, keep=keep)

    def refined(self, run: Run, frames: Frame) -> Request:
        """The request with the prompt that the video model gets."""
        text = run.job.refined_prompt
        if text is None and self.refiner is not None and self.refines(run.job):
            text = run.keep.text("refined", partial(self._refine, self.refiner, run, frames))
        if text is None:
            return run.job.request
        run.facts["refined_prompt"] = text
        if self.guard is not None:
            self.guard.check_text(text, "refined prompt")
        return replace(run.job.request, prompt=text)

    def _refine(self, refiner: Refiner, run: Run, frames: Frame) -> str:
        with run.observer.stage("refine the prompt"):
            return refiner.refine(run.job.request.prompt, frames[None] if frames.ndim == 3 else frames)

    def _facts(self, run: Run) -> dict[str, Any]:
        """What the sidecar holds."""
        facts = sidecar.describe(self.task, run.job, run.settings, self.models, run.observer.timings)
        return facts | {"guardrail": self.guard is not None} | run.facts


@contextmanager
def _closed(frames: Iterator[Frame]) -> Iterator[None]:
    """In the end nothing works on frames any more, whether all of them were taken or not."""
    try:
        yield
    finally:
        getattr(frames, "close", lambda: None)()
