"""`trt-run text2image`, `text2world` and `video2world`: from flags to results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime import (
    batch,
    batch_file,
    benchmark,
    flags,
    grouped,
    model_flags,
    prompts,
    reason_flags,
    report,
    safety_flags,
    sampling_flags,
    scale_flags,
    sidecar,
)
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job, check_places, job_of
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.control import Control
from worldrt.runtime.parallel.pools import opening
from worldrt.runtime.parallel.worker import work
from worldrt.runtime.progress import Bars, Plain
from worldrt.runtime.record import Recording
from worldrt.runtime.results import Result
from worldrt.runtime.shared import shared as run_shared


def run(args: argparse.Namespace) -> int:
    """Make what the flags say; returns the exit code."""
    return _run(args) if args.ray else shared(args, _run)


def shared(args: argparse.Namespace, make: Callable[[argparse.Namespace], int], task: str | None = None) -> int:
    """`make` in rank 0, with as many others as the flags say, which do their part; the exit code of this process.
    `task` is that of the models."""

    def others(args: argparse.Namespace, control: Control) -> None:
        flags.check(args)
        work(_open_models(argparse.Namespace(**{**vars(args), "verb": task or args.verb})), control)

    return run_shared(args, make, others)


def _run(args: argparse.Namespace) -> int:
    flags.check(args)
    if args.batch_input_json is not None:
        return _batch(args)
    job, generator = job_of(args), make_generator(args)
    generator.settings(job)  # every mistake is found before the result is begun
    check_places([job], overwrite=args.overwrite)
    _warn_of_files(args, job)
    result = _made(generator, job, args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(report.line(result))
    return 0


def make_generator(args: argparse.Namespace) -> Generator:
    """The generator that the flags describe, its models opened but not loaded."""
    models = _open_models(args)
    refiner = reason_flags.make_refiner(args, lambda text: models.text("video2world").fits(text))
    return Generator(args.verb, models, guard=safety_flags.make(args, models), refiner=refiner)


def _open_models(args: argparse.Namespace) -> Models:
    execution = sampling_flags.execution(args) | scale_flags.execution(args)
    models = model_flags.open_models(args, record=_recording(args), **execution)
    if args.from_sidecar is not None and sidecar.differs(sidecar.read(args.from_sidecar), models):
        print("warning: bundle or LoRA is not the one of the sidecar; frames may differ", file=sys.stderr)
    return models


def _warn_of_files(args: argparse.Namespace, job: Job) -> None:
    if args.from_sidecar is not None:
        for path in sidecar.other_files(sidecar.read(args.from_sidecar), job):
            print(f"warning: {report.plain(str(path))} is not as it was for the sidecar", file=sys.stderr)


def _recording(args: argparse.Namespace) -> Recording | None:
    if args.record_inputs is None:
        return None
    if args.batch_input_json is not None or args.benchmark:
        raise InputError("--record_inputs: it keeps one run; leave --batch_input_json and --benchmark out")
    recording = Recording(args.record_inputs, args.record_steps)
    recording.prepare()
    return recording


def _batch(args: argparse.Namespace) -> int:
    """What can be made of a batch is made; the summary is printed of an interrupted one too."""
    items = batch_file.read(args.batch_input_json, args)
    generator = make_generator(args)
    items = batch.checked(items, generator, overwrite=args.overwrite)
    wrong = [item for item in items if item.job is None]
    for item in wrong:
        print(
            f"error: {args.batch_input_json}[{item.index}]: {report.plain('; '.join(item.mistakes))}", file=sys.stderr
        )
    if wrong and args.strict:
        raise InputError(f"{args.batch_input_json}: {len(wrong)} of {len(items)} items cannot be made; none was begun")
    outcomes: list[batch.Outcome] = []
    make = partial(_all_made, generator, args)
    try:
        with opening.spread(args, partial(Maker, args)) if args.ray else nullcontext() as spread:
            size = args.batch_size
            for outcome in batch.run(items, generator, make, size=size, overwrite=args.overwrite, spread=spread):
                outcomes.append(outcome)
                if not args.json and items[outcome.index].job is not None:
                    print(report.outcome_line(outcome, len(outcomes), len(items)), flush=True)
    finally:
        outcomes.sort(key=lambda outcome: outcome.index)
        if args.json:
            print(json.dumps([outcome.as_json() for outcome in outcomes], indent=1))
        else:
            report.batch_table(outcomes)
    return batch.exit_code(outcomes)


class Maker:
    """Makes items of a batch in a worker of a cluster."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = argparse.Namespace(**{**vars(args), "quiet": True, "num_gpus": 1})
        self._generator = make_generator(self._args)

    def make(self, jobs: Sequence[Job], again: bool) -> list[dict[str, Any] | Exception]:
        """What becomes of each job. `again`: results that are there are of a worker that was lost."""
        prompts.prepare(self._generator, jobs)
        overwrite = self._args.overwrite or again
        args = argparse.Namespace(**{**vars(self._args), "overwrite": overwrite})
        return list(_all_made(self._generator, args, jobs))


def _all_made(
    generator: Generator, args: argparse.Namespace, jobs: Sequence[Job]
) -> Iterator[dict[str, Any] | Exception]:
    """The results of jobs as JSON data: one by itself, several together."""
    if len(jobs) == 1:
        yield grouped.attempt(lambda: _made(generator, jobs[0], args))
        return
    for result in grouped.make(generator, jobs, _observer(generator, args), overwrite=args.overwrite):
        yield result if isinstance(result, Exception) else result.as_json()


def _made(generator: Generator, job: Job, args: argparse.Namespace) -> dict[str, Any]:
    """The result of a job as JSON data; made several times where that is measured."""

    def make(again: bool) -> Result:
        if args.benchmark:
            for task in generator.tasks:
                generator.models.text(task).forget()
        return generator.run(job, _observer(generator, args), overwrite=args.overwrite or again)

    if not args.benchmark:
        return make(False).as_json()
    result = benchmark.measured(make, args.benchmark)
    if not args.json:
        report.benchmark_table(result)
    return result


def _observer(generator: Generator, args: argparse.Namespace) -> Bars | Plain:
    observer = Plain() if args.quiet or args.json else Bars()
    if args.benchmark:
        observer.before_step = generator.models.execution.opened_device.synchronize
    return observer
