"""`trt-run`: make videos and pictures from bundles, and look at bundles and at the machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from worldrt.engine.cli import Parser, run
from worldrt.engine.errors import InputError
from worldrt.runtime import changes, compare_cli, flags, generate, sidecar
from worldrt.runtime.progress import Bars, Plain
from worldrt.runtime.request import Request
from worldrt.runtime.timing import Timings, mean

BENCHMARK_RUNS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run(_main, argv)


def build_parser(defaults: Mapping[str, Any] | None = None) -> Parser:
    """`defaults` of the tasks' flags, by name of the parsed argument."""
    parser = Parser(prog="trt-run", description="Run world models that trt-export made into bundles.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for task in flags.TASKS:
        flags.add_task(commands, task, defaults or {})
    compare_cli.add(commands)
    inspect = commands.add_parser("inspect", help="what a bundle holds, and whether it is whole")
    inspect.set_defaults(verb="inspect")
    inspect.add_argument("bundle", type=Path)
    inspect.add_argument("--checkpoint", help="where its weights lie now")
    inspect.add_argument("--full", action="store_true", help="hash the weight files too, where hashes were recorded")
    inspect.add_argument("--json", action="store_true")
    doctor = commands.add_parser("doctor", help="what this machine has, and what each missing piece would bring")
    doctor.set_defaults(verb="doctor")
    doctor.add_argument("--json", action="store_true")
    return parser


def _main(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    if args.verb == "inspect":
        from worldrt.runtime.inspection import inspect

        return inspect(args.bundle, args.checkpoint, full=args.full, as_json=args.json)
    if args.verb == "compare":
        return compare_cli.run(args)
    if args.verb == "doctor":
        from worldrt.runtime.doctor import doctor

        return doctor(as_json=args.json)
    if args.from_sidecar is not None:
        args = _repeated(args, argv)
    return _generate(args)


def _repeated(args: argparse.Namespace, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse again with the sidecar's run as the defaults, so that flags that were given win."""
    data = sidecar.read(args.from_sidecar)
    if data["task"] != args.verb:
        raise InputError(f"{args.from_sidecar}: it describes a run of {data['task']}: trt-run {data['task']} ...")
    defaults = {field.name: getattr(data["request"], field.name) for field in fields(Request)}
    defaults["solver"] = defaults.pop("sampler")
    execution = data["execution"]
    defaults |= {"backend": execution["backend"], "device": execution["device"], "cfg": execution["guidance"]}
    defaults |= {"threads": execution["options"].get("threads", 0)}
    if data.get("input"):
        defaults |= {"input_path": Path(data["input"]["path"]), "num_conditional_frames": data["input"]["frames"]}
    again = build_parser(defaults).parse_args(argv)
    if not again.bundle and not again.model_size:
        again.bundle = [bundle["folder"] for bundle in data["bundles"]]
        again.checkpoint = again.checkpoint or [bundle["weight_root"] for bundle in data["bundles"]]
    changes.repeat(again, data["changes"])
    return again


def _generate(args: argparse.Namespace) -> int:
    flags.check_official(args)
    jobs = generate.jobs(args)
    models = generate.open_models(args)
    if args.from_sidecar is not None and sidecar.differs(args.from_sidecar, models):
        print("warning: bundle or LoRA is not the one of the sidecar; frames may differ", file=sys.stderr)
    generator = generate.Generator(args.verb, models)
    for job in jobs:
        generator.settings(job)  # every mistake is found before the first result is begun
    generate.check_places(jobs, overwrite=args.overwrite)
    quiet = args.quiet or args.json
    results = []
    for job in jobs:
        runs = [
            generator.run(job, Plain() if quiet else Bars(), overwrite=args.overwrite or i > 0)
            for i in range(BENCHMARK_RUNS if args.benchmark else 1)
        ]
        results.append(runs[-1].as_json())
        if args.benchmark:
            results[-1]["timings_s"] = _benchmark([result.timings for result in runs[1:]], args.json)
        if not args.json:
            print(_line(results[-1]))
    if args.json:
        print(json.dumps(results if args.batch_input_json else results[0], indent=1))
    return 0


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
