"""Best of N: the same request with several seeds, and a critic that says which result has the least wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from worldrt.engine.errors import BlockedError, InputError, OutputError
from worldrt.engine.files import staged_file
from worldrt.engine.schema import parse_json
from worldrt.runtime import matching, sidecar
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job, check_places
from worldrt.runtime.models import Models
from worldrt.runtime.progress import Bars, Plain
from worldrt.runtime.reason import report
from worldrt.runtime.reason.answers import parse
from worldrt.runtime.reason.clip import read_clip
from worldrt.runtime.reason.critic import Critic, Review
from worldrt.runtime.safety.base import Guard

MOST = 10_000
RESULTS = "best-of-n.json"
Observe = Callable[[], Bars | Plain]


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
        return [
            replace(self.job, request=replace(request, seed=seed), place=str(folder / f"{stem}_seed{seed}.mp4"))
            for seed in range(request.seed, request.seed + self.generations)
        ]


@dataclass(frozen=True)
class Candidate:
    """A video that was judged. `score` 0 to 1 is the share of trials that found nothing wrong, among those that could
    be understood; None where none could. `report` is an HTML file, `answers` a JSON file."""

    video: Path
    score: float | None
    sound: int
    understood: int
    trials: int
    report: Path
    answers: Path

    def as_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


class BestOfN:
    """`with BestOfN.open(folder, critic=Critic(chat)) as best:` and `for candidate in best(BestOfNRequest(job)): ...`

    `observe` makes the observer of each video and of each review.
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
        observe: Observe = Plain,
        guard: Guard | None = None,
        **execution: Any,
    ) -> BestOfN:
        """Read bundle folders; `execution` are the fields of `Execution`, `guard` as for pipelines. Raises
        `BundleError`."""
        return cls(Generator("video2world", Models.open(bundles, **execution), guard=guard), critic, observe)

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
        for job in todo:
            observer = self._observe()
            try:
                generator.run(job, observer, overwrite=overwrite)
            except BlockedError as error:
                observer.warn(f"{job.place}: blocked, and left out: {error}")
                blocked[job.place] = error
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
        """Yield each video as it has been judged; a review that was made from the same is read and not made again.

        Raises `OutputError` for one that was made otherwise, before any work, unless it may be replaced.
        """
        self.critic.check(trials)
        kept = [self._kept(video, self.critic.made_from(video, trials, seed), overwrite) for video in videos]
        for video, review in zip(videos, kept, strict=True):
            candidate = None if review is None else _candidate(video, review)
            if candidate is not None and candidate.report.is_file():
                yield candidate
            else:
                yield self._judged(video, trials, seed, review, overwrite)

    def _kept(self, video: Path, made_from: Mapping[str, Any], overwrite: bool) -> Review | None:
        for path in _reviews(video):
            review = _read(path)
            if review is not None and review.made_from == made_from:
                return review
            if not overwrite:
                raise OutputError(f"{path} exists: it was made from other things; --overwrite, or give another folder")
        return None

    def _judged(self, video: Path, trials: int, seed: int, review: Review | None, overwrite: bool) -> Candidate:
        """Ask, where there is no review yet, and write what came of it."""
        clip, observer, old = read_clip(video), self._observe(), _reviews(video)
        stage = f"critic: {video.name}"
        with observer, observer.stage(stage):
            review = review or self.critic.review(
                clip, trials, seed, lambda done, total: observer.progress(stage, done, total)
            )
        made = _candidate(video, review)
        with staged_file(made.report, overwrite=overwrite) as part:
            part.write_bytes(report.report(clip, review, _about(video, review)).encode("utf-8", "replace"))
            if made.answers not in old or overwrite:
                _write_answers(made.answers, video, review, overwrite)
        for path in old:
            if path != made.answers:
                path.unlink(missing_ok=True)
                path.with_suffix(".html").unlink(missing_ok=True)
        return made


def _write_answers(place: Path, video: Path, review: Review, overwrite: bool) -> None:
    text = json.dumps({"video": video.name} | review.as_json(), indent=1, ensure_ascii=False)
    with staged_file(place, overwrite=overwrite) as part:
        part.write_bytes(text.encode("utf-8", "backslashreplace"))


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best first; those without a score last; equal ones in the order they have."""
    return sorted(candidates, key=lambda candidate: -1.0 if candidate.score is None else candidate.score, reverse=True)


def videos_in(folder: Path) -> list[Path]:
    """The videos of a folder, by name. Raises `InputError` where there is none."""
    found = sorted(path for path in folder.glob("*.mp4") if not path.name.startswith(".")) if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder}: no .mp4 there to judge; leave --skip_generation out, or give another --save_path")
    return found


def _candidate(video: Path, review: Review) -> Candidate:
    stem = video.with_name(f"{video.stem}{review.suffix}.json")
    counts = (review.sound, review.understood, len(review.answers))
    return Candidate(video, review.score, *counts, stem.with_suffix(".html"), stem)


def _reviews(video: Path) -> list[Path]:
    """The JSON files of reviews of a video."""
    names = [f"{video.stem}_unscored", *(f"{video.stem}_score{i:03d}" for i in range(101))]
    return [path for path in (video.with_name(f"{name}.json") for name in names) if path.is_file()]


def _read(path: Path) -> Review | None:
    """A review that was written; None for a file that is none, such as one of the official script."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        return Review(tuple(parse(text) for text in data["responses"]), data["made_from"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _about(video: Path, review: Review) -> list[tuple[str, str]]:
    """What is shown at the top of a report; more where the video has a sidecar."""
    facts: list[tuple[str, str]] = []
    try:
        data: Mapping[str, Any] = sidecar.read(video.with_suffix(".json"))
        facts += [("prompt", data["request"].prompt)]
        facts += [("refined", data["refined_prompt"])] if data.get("refined_prompt") else []
        facts += [("seed", str(data["request"].seed))]
    except InputError:
        pass
    return [*facts, ("critic", str(review.made_from["critic"])), ("trials", str(len(review.answers)))]
