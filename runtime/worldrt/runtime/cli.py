"""`trt-run`: make videos and pictures from bundles, and look at bundles and at the machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldrt.engine.cli import Parser, run
from worldrt.runtime import bestofn_flags, compare_cli, flags, repeat, serve_flags, world_flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run(_main, argv)


def build_parser(defaults: Mapping[str, Any] | None = None) -> Parser:
    """`defaults` of the tasks' flags, by name of the parsed argument."""
    parser = Parser(prog="trt-run", description="Run world models that trt-export made into bundles.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for task in flags.TASKS:
        flags.add_task(commands, task, defaults or {})
    world_flags.add_command(commands)
    serve_flags.add_command(commands)
    bestofn_flags.add(commands)
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
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    args.argv = argv
    if args.verb == "inspect":
        from worldrt.runtime.inspection import inspect

        return inspect(args.bundle, args.checkpoint, full=args.full, as_json=args.json)
    if args.verb == "bestofn":
        from worldrt.runtime import bestofn_cli

        return bestofn_cli.run(args)
    if args.verb == "world":
        from worldrt.runtime import world_cli

        return world_cli.run(args)
    if args.verb == "serve":
        from worldrt.runtime import serve_cli

        return serve_cli.run(args)
    if args.verb == "compare":
        return compare_cli.run(args)
    if args.verb == "doctor":
        from worldrt.runtime.doctor import doctor

        return doctor(as_json=args.json)
    return _task(args, argv)


def _task(args: argparse.Namespace, argv: Sequence[str]) -> int:
    from worldrt.runtime import task_cli

    if args.from_sidecar is not None:
        args = repeat.repeated(args, lambda defaults: build_parser(defaults).parse_args(argv))
        args.argv = argv
    return task_cli.run(args)
