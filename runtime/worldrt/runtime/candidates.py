"""What becomes of a video that is judged: its files beside it, and its place among the others.

photo_seed3.mp4               the video
photo_seed3_score080.json     the answers, word by word and as they were understood
photo_seed3_score080.html     the report
best-of-n.json                all candidates, the best first
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.engine.files import staged_file
from worldrt.engine.schema import parse_json
from worldrt.runtime import sidecar
from worldrt.runtime.reason.answers import parse
from worldrt.runtime.reason.critic import Review

RESULTS = "best-of-n.json"


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


def write_answers(place: Path, video: Path, review: Review, overwrite: bool) -> None:
    text = json.dumps({"video": video.name} | review.as_json(), indent=1, ensure_ascii=False)
    with staged_file(place, overwrite=overwrite) as part:
        part.write_bytes(text.encode("utf-8", "backslashreplace"))


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best first; those without a score last; equal ones in the order they have."""
    return sorted(candidates, key=lambda candidate: -1.0 if candidate.score is None else candidate.score, reverse=True)


def videos_in(folder: Path) -> list[Path]:
    """The videos of a folder, by name. Raises `InputError` where there is none."""
    found = sorted(path for path in folder.glob("*.mp4") if not path.name.startswith(".") and path.is_file())
    if not found:
        raise InputError(f"{folder}: no .mp4 there to judge; leave --skip_generation out, or give another --save_path")
    return found


def candidate_of(video: Path, review: Review) -> Candidate:
    stem = video.with_name(f"{video.stem}{review.suffix}.json")
    counts = (review.sound, review.understood, len(review.answers))
    return Candidate(video, review.score, *counts, stem.with_suffix(".html"), stem)


def reviews_of(video: Path) -> list[Path]:
    """The JSON files of reviews of a video."""
    names = [f"{video.stem}_unscored", *(f"{video.stem}_score{i:03d}" for i in range(101))]
    places = (video.with_name(f"{name}.json") for name in names)
    return [path for path in places if os.path.isfile(path)]  # no error where a name is too long


def read_review(path: Path) -> Review | None:
    """A review that was written; None for a file that is none, such as one of the official script."""
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        return Review(tuple(parse(text) for text in data["responses"]), data["made_from"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def about(video: Path, review: Review) -> list[tuple[str, str]]:
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
