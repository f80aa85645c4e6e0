"""Best of N: the same request with several seeds, and a critic that says which result has the least wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from worldrt.engine.errors import BlockedError, InputError, OutputError, WorldrtError
from worldrt.engine.files import check_place, staged_file
from worldrt.runtime import grouped, matching
from worldrt.runtime.batch_file import Item
from worldrt.runtime.candidates import (
    Candidate,
    about,
    candidate_of,
    read_review,
    reviews_of,
    write_answers,
)
from worldrt.runtime.generate import Generator, Refiner
from worldrt.runtime.jobs import Job, check_places
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.progress import Plain
from worldrt.runtime.reason import report
from worldrt.runtime.reason.clip import Clip, read_clip
from worldrt.runtime.reason.critic import Critic, Review
from worldrt.runtime.results import Result
from worldrt.runtime.safety.base import Guard
from worldrt.runtime.sinks.base import split_place

MOST = 10_000
Observe = Callable[[], Observer]


@dataclass(frozen=True)
class BestOfNRequest:
    """`generations` videos of a job of video2world whose `place` is a folder, with its request's seed and those after
    it; each is judged `trials` times."""

    job: Job
    generations: int = 2
    trials: int = 5

    def jobs(self) -> list[Job]:
        """A job for each seed, named as the official script does: `photo_seed3.mp4`. Raises `InputError`."""
        if not 1 <= self.generations <= MOST:
            raise InputError(f"num_generations: expected 1 to {MOST}, got {self.generations}")
        if self.job.input_path is None:
            raise InputError("--input_path: a picture or a video to go on from is missing")
        request, folder, stem = self.job.request, Path(self.job.place), self.job.input_path.stem
        if split_place(str(folder / "a.mp4")) != ("mp4", folder / "a.mp4"):
            raise InputError(f"'{folder}': expected a folder, for MP4 files and reports; got another kind of place")
        return [
            replace(self.job, request=replace(request, seed=seed), place=str(folder / f"{stem}_seed{seed}.mp4"))
            for seed in range(request.seed, request.seed + self.generations)
        ]


class BestOfN:
    """`with BestOfN.open(folder, critic=Critic(chat)) as best:` and `for candidate in best(BestOfNRequest(job)): ...`

    `observe` makes the observer of each video, or of some that are made together, and of each review.
    """

    def __init__(self, generator: Generator | None, critic: Critic, observe: Observe = Plain) -> None:
        """Without a generator it only judges what is there. Raises `BackendError` where reports cannot be made."""
        report.available()
        self.generator, self.critic, self._observe = generator, critic, observe

    @classmethod
    def open(
        cls,
        *bundles: Path | str,
        critic: Critic,
        guard: Guard | None = None,
        refiner: Refiner | None = None,
        observe: Observe = Plain,
        **execution: Any,
    ) -> BestOfN:
        """Read bundle folders; `execution` are the fields of `Execution`. Raises `BundleError`."""
        models = Models.open(bundles, **execution)
        return cls(Generator("video2world", models, guard=guard, refiner=refiner), critic, observe)

    def __enter__(self) -> BestOfN:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()
        self.critic.chat.unload()

    def __call__(self, wanted: BestOfNRequest, *, overwrite: bool = False) -> Iterator[Candidate]:
        """Make the videos, then yield each as it has been judged. What is there already, made from the same, is kept.

        Raises `InputError` and `OutputError` before any work.
        """
        self.critic.check(wanted.trials)
        videos = self.make(wanted.jobs(), overwrite=overwrite)
        yield from self.judge(videos, wanted.trials, wanted.job.request.seed, overwrite=overwrite)

    def make(self, jobs: Sequence[Job], *, overwrite: bool = False) -> list[Path]:
        """Make the videos that are not there, then let their models go, so that the critic has room.

        One that the guardrail blocks is left out, unless all are. Raises what stands in the way before any work.
        """
        generator = self.generator
        if generator is None:
            raise InputError("best of N: no model to make videos with; give a bundle, or judge what is there")
        todo = [job for job in jobs if not matching.finished(job, generator, overwrite=overwrite)]
        for job in todo:
            generator.settings(job)
        check_places(todo, overwrite=overwrite)
        blocked: dict[str, BlockedError] = {}
        items = [Item(i, job.place, job) for i, job in enumerate(todo)]
        for group in grouped.groups(items, generator.models.execution.clips):
            some, observer = [item.job for item in group if item.job is not None], self._observe()
            for job, made in zip(some, _made(generator, some, observer, overwrite), strict=True):
                if isinstance(made, BlockedError):
                    observer.warn(f"{job.place}: blocked, and left out: {made}")
                    blocked[job.place] = made
                elif isinstance(made, Exception):
                    raise made
        if len(blocked) == len(jobs):
            raise next(iter(blocked.values()))
        self._let_go()
        return [Path(job.place) for job in jobs if job.place not in blocked]

    def _let_go(self) -> None:
        if self.generator is None:
            return
        self.generator.models.close()
        for helper in (self.generator.guard, self.generator.refiner):
            if helper is not None:
                helper.unload()

    def judge(
        self, videos: Sequence[Path], trials: int = 5, seed: int = 0, *, overwrite: bool = False
    ) -> Iterator[Candidate]:
        """Yield each video as it has been judged; a review that was made from the same is read and not made again. One
        that cannot be read, or whose folder not written, is left out with a warning, unless all are.

        Raises `OutputError` for one that was made otherwise, before any work, unless it may be replaced.
        """
        self.critic.check(trials)
        kept = [self._kept(video, self.critic.made_from(video, trials, seed), overwrite) for video in videos]
        left_out: list[WorldrtError] = []
        for video, review in zip(videos, kept, strict=True):
            candidate = None if review is None else candidate_of(video, review)
            if candidate is None or not candidate.report.is_file():
                try:
                    check_place(video.with_name(f"{video.stem}_score100.html"), overwrite=True)
                    clip = read_clip(video)
                except (InputError, OutputError) as error:
                    self._observe().warn(f"{error}; it is left out")
                    left_out.append(error)
                    continue
                candidate = self._judged(clip, trials, seed, review, overwrite)
            yield candidate
        if left_out and len(left_out) == len(videos):
            raise left_out[0]

    def _kept(self, video: Path, made_from: Mapping[str, Any], overwrite: bool) -> Review | None:
        for path in reviews_of(video):
            review = read_review(path)
            if review is not None and review.made_from == made_from:
                return review
            if not overwrite:
                raise OutputError(f"{path} exists: it was made from other things; --overwrite, or give another folder")
        return None

    def _judged(self, clip: Clip, trials: int, seed: int, review: Review | None, overwrite: bool) -> Candidate:
        """Ask, where there is no review yet, and write what came of it."""
        video, observer, old = clip.path, self._observe(), reviews_of(clip.path)
        stage = f"critic: {video.name}"
        with observer, observer.stage(stage):
            review = review or self.critic.review(
                clip, trials, seed, lambda done, total: observer.progress(stage, done, total)
            )
        made = candidate_of(video, review)
        with staged_file(made.report, overwrite=overwrite) as part:
            part.write_bytes(report.report(clip, review, about(video, review)).encode("utf-8", "replace"))
            if made.answers not in old or overwrite:
                write_answers(made.answers, video, review, overwrite)
        for path in old:
            if path != made.answers:
                path.unlink(missing_ok=True)
                path.with_suffix(".html").unlink(missing_ok=True)
        return made


def _made(
    generator: Generator, jobs: Sequence[Job], observer: Observer, overwrite: bool
) -> Iterator[Result | Exception]:
    """What becomes of jobs: one by itself, several together."""
    if len(jobs) > 1:
        return grouped.make(generator, jobs, observer, overwrite=overwrite)
    return iter([grouped.attempt(partial(generator.run, jobs[0], observer, overwrite=overwrite))])
