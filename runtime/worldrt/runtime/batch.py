"""Running a batch: what can be made is made, one after the other, with models that stay loaded."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from worldrt.engine.errors import BlockedError, InputError, OutputError, WorldrtError
from worldrt.runtime import inputs, matching, prompts
from worldrt.runtime.batch_file import Item
from worldrt.runtime.generate import Generator
from worldrt.runtime.grouped import groups
from worldrt.runtime.jobs import Job, spot

Status = Literal["made", "skipped", "failed", "blocked"]
Make = Callable[[Sequence[Job]], Iterable[dict[str, Any] | Exception]]  # for each job its result's data, or an error

Results = Iterable[dict[str, Any] | Exception]
Spread = Callable[[list[list[Item]]], Iterator[tuple[list[Item], Results]]]  # groups, in any order, and their results


@dataclass(frozen=True)
class Outcome:
    """What became of an item. `why` says it of a failure; `result` is a result's JSON data."""

    index: int
    place: str
    status: Status
    why: str = ""
    result: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {"path": self.place} | (self.result or {}) | {"status": self.status, "error": self.why or None}


def checked(items: Iterable[Item], generator: Generator, *, overwrite: bool) -> list[Item]:
    """The items, with the mistakes that only show beside the models and the disk. Nothing is loaded.

    Raises what is wrong with every item alike, such as a bundle that lacks a model.
    """
    generator.check_models()
    taken: dict[Path, int] = {}
    return [_checked(item, item.job, generator, taken, overwrite) if item.job else item for item in items]


def _checked(item: Item, job: Job, generator: Generator, taken: dict[Path, int], overwrite: bool) -> Item:
    mistakes = []
    for check in (partial(_check_job, job, generator), partial(_check_place, item, job, generator, taken, overwrite)):
        try:
            check()
        except (InputError, OutputError) as error:
            mistakes.append(str(error))
    return replace(item, job=None, mistakes=tuple(mistakes)) if mistakes else item


def _check_job(job: Job, generator: Generator) -> None:
    """The input is read, too: better now than after hours."""
    generator.settings(job)
    if generator.task == "video2world":
        inputs.given(generator.task, job)


def _check_place(item: Item, job: Job, generator: Generator, taken: dict[Path, int], overwrite: bool) -> None:
    for place in job.places:
        if spot(place) in taken:
            raise InputError(f"{place}: item {taken[spot(place)]} has this place already")
    taken.update({spot(place): item.index for place in job.places})
    if not matching.finished(job, generator, overwrite=overwrite):
        job.check_places(overwrite=overwrite)


def run(
    items: Sequence[Item],
    generator: Generator,
    make: Make,
    *,
    size: int,
    overwrite: bool,
    spread: Spread | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of each item as it is known. A failure does not stop the others; an interruption does.

    A result that is there is skipped where its sidecar says that it was made from this very job and these models.
    `make` is given up to `size` jobs with equal settings at a time. `spread` has groups of them made elsewhere.
    """
    done = {item.index for item in items if item.job and matching.finished(item.job, generator, overwrite=overwrite)}
    left = [item for item in items if item.job and item.index not in done]
    if spread is None:
        prompts.prepare(generator, [item.job for item in left if item.job])
    for item in items:
        if item.job is None:
            yield Outcome(item.index, item.place, "failed", "; ".join(item.mistakes))
        elif item.index in done:
            yield Outcome(item.index, item.place, "skipped")
    here = ((group, make([item.job for item in group if item.job])) for group in groups(left, size))
    for group, results in here if spread is None else spread(groups(left, size)):
        for item, made in zip(group, results, strict=True):
            yield _outcome(item, made)


def _outcome(item: Item, made: dict[str, Any] | Exception) -> Outcome:
    if not isinstance(made, Exception):
        return Outcome(item.index, item.place, "made", result=made)
    if isinstance(made, BlockedError):
        return Outcome(item.index, item.place, "blocked", str(made))
    if isinstance(made, (WorldrtError, MemoryError, OSError)):
        return Outcome(item.index, item.place, "failed", str(made) or type(made).__name__)
    traceback.print_exception(made, file=sys.stderr)  # a defect: it is shown whole, and the other items are made
    return Outcome(item.index, item.place, "failed", f"{type(made).__name__}: {made}")


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 where nothing failed, 3 where all failures are the guardrail's, else 2."""
    failures = {outcome.status for outcome in outcomes} - {"made", "skipped"}
    return 0 if not failures else 3 if failures == {"blocked"} else 2
