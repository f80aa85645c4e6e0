"""`trt-bench all`: everything that this machine can measure, each part in a process of its own, and the report of it.

A part that fails, or for which something is missing, is named, and the rest goes on.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldrt.benchmarks import machine
from worldrt.engine import cli

NANO = "{nano}"
"""Stands for the folder of the bundle in the arguments of a part."""


@dataclass(frozen=True)
class Part:
    """Arguments of `trt-bench`, and the packages without which it cannot be. Quick ones come first."""

    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    gpu: bool = False

    @property
    def name(self) -> str:
        return self.arguments[0]


PARTS = (
    Part(("kernels",)),
    Part(("io", "--rounds", "5", "--frames", "12")),
    Part(("stream", "--frames", "20000")),
    Part(("overhead", "--bundle", NANO)),
    Part(("cpu", "--bundle", NANO, "--rounds", "10"), ("diffusers",)),
    Part(("export", "--models", "14B")),
    Part(("build", "--cases", "14B-inputs"), ("tensorrt_rtx",)),
    Part(("gpu", "--bundle", NANO, "--budget_s", "200"), ("torch",), gpu=True),
)


def add(verbs: Any) -> None:
    """The verb and its flags."""
    text = "everything that this machine can measure, and the report of it"
    parser: cli.Parser = verbs.add_parser("all", help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=run)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/out"), metavar="FOLDER",
                        help="for results and report.html (default %(default)s)")  # fmt: skip
    parser.add_argument("--bundle", type=Path, help="nano (default: exported here, into the folder)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help=f"of {', '.join(part.name for part in PARTS)}")
    parser.add_argument("--limit_s", type=float, default=420, help="no part begins later (default %(default)s)")


def run(args: Namespace) -> int:
    """The exit code is 1 where a part failed."""
    from worldrt.benchmarks import bundles
    from worldrt.benchmarks.report import cli as report

    start = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if not args.parts or part.name in args.parts]
    bundle = args.bundle
    if bundle is None and any(NANO in part.arguments for part in chosen):
        bundle = args.output / "nano"
        if not (bundle / "bundle.json").is_file():
            bundles.nano(args.output, _say)
    failed = []
    for part in chosen:
        reason = _missing(part) or ("the time is over" if time.monotonic() - start > args.limit_s else "")
        if reason:
            _say(f"{part.name}: left out: {reason}")
            continue
        _say(f"{part.name}: {time.monotonic() - start:.0f} s after the start")
        if _measure(part, bundle, args.output):
            failed.append(part.name)
    page = args.output / "report.html"
    report.write([args.output], [], page)
    _say(f"{page} after {time.monotonic() - start:.0f} s{'; failed: ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


def _measure(part: Part, bundle: Path | None, output: Path) -> int:
    arguments = [str(bundle) if argument == NANO else argument for argument in part.arguments]
    command = [sys.executable, "-m", "worldrt.benchmarks.cli", *arguments, "--output", str(output), "--quiet"]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def _missing(part: Part) -> str:
    absent = [name for name in part.needs if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} is not installed"
    return "no GPU" if part.gpu and not machine.has_gpu() else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
