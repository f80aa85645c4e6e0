"""`trt-bench gpu`: its flags, and what it hands to the suite."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from worldrt.benchmarks.progress import say
from worldrt.benchmarks.results import Table
from worldrt.engine import cli
from worldrt.engine.errors import InputError, OutputError

TEXT = "all that is to be known of a GPU, part by part, within a budget of time"
ROUNDS = 20


def flags(parser: cli.Parser) -> None:
    """Of the verb."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run with tiny shapes")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="of build, kernels, rates, weights, model, "
                        "components, block, graphs, backend[:NAME], tests (default: all)")  # fmt: skip
    parser.add_argument("--bundle", type=Path, help="nano in float32 (default: that of the package)")
    parser.add_argument("--bundle_bf16", type=Path, help="nano in bfloat16 (default: exported here)")
    parser.add_argument("--budget_s", type=float, default=460, help="for all parts together (default %(default)s)")


def measure(args: Namespace, scratch: Path) -> tuple[list[Table], dict[str, Any], dict[str, list[float]]]:
    """Raises `InputError`. What there is is saved after every part."""
    from worldrt.benchmarks.gpu import suite
    from worldrt.benchmarks.gpu.base import Setup

    try:
        names = suite.names(args.parts)
    except KeyError as error:
        raise InputError(f"--parts: no {error}; there are {', '.join(step.name for step in suite.STEPS)}") from None
    given = {"float32": args.bundle, "bfloat16": args.bundle_bf16}
    bundles = {name: (path or scratch / f"nano-{name}").absolute() for name, path in given.items()}
    if args.bundle and not args.bundle_bf16:
        del bundles["bfloat16"]
    settings = {"device": args.device, "parts": " ".join(names), "budget_s": args.budget_s}
    setup = Setup(args.device, args.rounds, scratch, bundles=bundles)
    args.save(([], settings, {}))  # a folder that cannot be written to is known before minutes of work

    def save(made: Any) -> None:
        try:
            args.save((made[0], settings, made[1]))
        except (OutputError, OSError) as error:
            print(f"warning: {error}", file=sys.stderr, flush=True)

    run = suite.Suite(setup, args.budget_s, say(args), save)
    tables, samples = run.run(names)
    return tables, settings, samples
