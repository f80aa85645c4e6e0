"""`trt-run text2image`, `text2world` and `video2world`: from flags to results."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime import batch_file, flags, model_flags, sidecar
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job, check_places, job_of
from worldrt.runtime.models import Models
from worldrt.runtime.progress import Bars, Plain
from worldrt.runtime.record import Recording
from worldrt.runtime.timing import Timings, mean

BENCHMARK_RUNS = 4


def run(args: argparse.Namespace) -> int:
    """Make what the flags say; returns the exit code."""
    flags.check(args)
    jobs = [job_of(args)] if args.batch_input_json is None else batch_file.read(args.batch_input_json, job_of(args))
    generator = make_generator(args)
    for job in jobs:
        generator.settings(job)  # every mistake is found before the first result is begun
    check_places(jobs, overwrite=args.overwrite)
    results = []
    for job in jobs:
        results.append(_made(generator, job, args))
        if not args.json:
            print(_line(results[-1]))
    if args.json:
        print(json.dumps(results if args.batch_input_json else results[0], indent=1))
    return 0


def make_generator(args: argparse.Namespace) -> Generator:
    """The generator that the flags describe, its models opened but not loaded."""
    return Generator(args.verb, _open_models(args))


def _open_models(args: argparse.Namespace) -> Models:
    models = model_flags.open_models(args, record=_recording(args))
    if args.from_sidecar is not None and sidecar.differs(args.from_sidecar, models):
        print("warning: bundle or LoRA is not the one of the sidecar; frames may differ", file=sys.stderr)
    return models


def _recording(args: argparse.Namespace) -> Recording | None:
    if args.record_inputs is None:
        return None
    if args.batch_input_json is not None or args.benchmark:
        raise InputError("--record_inputs: it keeps one run; leave --batch_input_json and --benchmark out")
    recording = Recording(args.record_inputs, args.record_steps)
    recording.prepare()
    return recording


def _made(generator: Generator, job: Job, args: argparse.Namespace) -> dict[str, Any]:
    """The result of a job as JSON data; made several times where that is measured."""
    quiet = args.quiet or args.json
    runs = [
        generator.run(job, Plain() if quiet else Bars(), overwrite=args.overwrite or i > 0)
        for i in range(BENCHMARK_RUNS if args.benchmark else 1)
    ]
    result = runs[-1].as_json()
    if args.benchmark:
        result["timings_s"] = _benchmark([run.timings for run in runs[1:]], args.json)
    return result


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['path'].rstrip(':')}: {result['frames']} frame(s), {result['width']}x{result['height']}, "
        f"{result['timings_s']['total']:.1f} s"
    )


def _benchmark(runs: list[Timings], as_json: bool) -> dict[str, float]:
    """The mean of some runs, as a table unless JSON was asked for."""
    average = mean(runs)
    if not as_json:
        print(f"mean of {len(runs)} runs, the first one dropped", file=sys.stderr)
        for stage, seconds in average.seconds.items():
            print(f"{stage:32}{seconds:10.3f} s", file=sys.stderr)
    return average.rounded()
