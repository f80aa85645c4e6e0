"""`trt-bench all`: everything that this machine can measure, each part in a process of its own, and the report of it.

All parts together have a budget of time. Where it does not suffice, later parts are made in a shorter form rather than
left out; one that takes much longer than it should is stopped. A part that fails, or for which something is missing, is
named, and the rest goes on.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldrt.benchmarks import machine
from worldrt.benchmarks.processes import family
from worldrt.benchmarks.report import cli as report_cli
from worldrt.engine import cli

NANO = "{nano}"
"""Stands for the folder of the bundle in the arguments of a part."""
PATIENCE = 3.0
"""How many times what a part should take it gets, where there is time."""
REPORT_S = 15.0
"""Is kept for the report."""


@dataclass(frozen=True)
class Part:
    """Arguments of `trt-bench`, the seconds that they should take on two cores that nobody else uses, arguments that
    are added for a shorter form, and its seconds; and the packages without which it cannot be."""

    arguments: tuple[str, ...]
    seconds: float
    short: tuple[str, ...] = ()
    short_s: float = 0.0
    needs: tuple[str, ...] = ()
    gpu: bool = False

    @property
    def name(self) -> str:
        return self.arguments[0]

    @property
    def least_s(self) -> float:
        """Of the shortest form that it has."""
        return self.short_s if self.short else self.seconds


CONTENDERS = ("--contenders", "worldrt", "int8", "diffusers", "diffusers-compiled", "--compile_limit_s", "90")
PARTS = (
    Part(("cpu", "--bundle", NANO, "--rounds", "7", *CONTENDERS), 150,
         ("--rounds", "3", "--steps", "5", "--contenders", "worldrt", "int8", "diffusers"), 30,
         ("diffusers", "accelerate")),
    Part(("quality", "--bundle", NANO, "--prompts", "2", "--steps", "15", "--seconds", "8"), 75,
         ("--parts", "videos", "--prompts", "1", "--steps", "8"), 20, ("onnx_ir",)),
    Part(("kernels",), 12, ("--rounds", "3"), 6),
    Part(("io", "--rounds", "5", "--frames", "12"), 25, ("--rounds", "3", "--frames", "6"), 10),
    Part(("stream", "--frames", "20000"), 20, ("--frames", "2000"), 5),
    Part(("overhead", "--bundle", NANO), 10),
    Part(("scale",), 25, ("--rounds", "3"), 12, ("torch",)),
    Part(("export", "--models", "14B"), 45, needs=("torch", "onnxscript")),
    Part(("build", "--cases", "14B-inputs"), 30, needs=("tensorrt_rtx",)),
    Part(("gpu", "--bundle", NANO, "--budget_s", "200"), 210, ("--budget_s", "90"), 100, ("torch",), gpu=True),
)  # fmt: skip
"""What answers most comes first."""


def add(verbs: Any) -> None:
    """The verb and its flags."""
    text = "everything that this machine can measure, and the report of it"
    parser: cli.Parser = verbs.add_parser("all", help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=run)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/out"), metavar="FOLDER",
                        help="for results and report.html (default %(default)s)")  # fmt: skip
    parser.add_argument("--bundle", type=Path, help="nano (default: that of the package)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help=f"of {', '.join(part.name for part in PARTS)}")
    parser.add_argument("--budget_s", type=float, default=420, help="for all parts together (default %(default)s)")


def run(args: Namespace) -> int:
    """The exit code is 1 where a part failed."""
    from worldrt.benchmarks import bundles

    start = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    parts = [part for part in PARTS if not args.parts or part.name in args.parts]
    bundle = args.bundle
    if bundle is None and any(NANO in part.arguments for part in parts):
        bundle = bundles.nano(args.output, _say)
    failed = []
    for number, part in enumerate(parts):
        spent = time.monotonic() - start
        later = [after for after in parts[number + 1 :] if not _missing(after)]
        left = args.budget_s - REPORT_S - spent - sum(after.least_s for after in later)
        reason = _missing(part) or ("no time is left for it" if left < part.least_s else "")
        if reason:
            _say(f"{part.name}: left out: {reason}")
            continue
        short = part.short if left < part.seconds else ()
        _say(f"{part.name}: {spent:.0f} s after the start{', in its shorter form' if short else ''}")
        wrong = _measure(part, short, bundle, args.output, min(left, PATIENCE * part.seconds))
        if wrong:
            _say(f"{part.name}: {wrong}")
            failed.append(part.name)
    page = args.output / "report.html"
    report_cli.write([args.output], [], page)
    _say(f"{page} after {time.monotonic() - start:.0f} s{'; failed: ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


def _measure(part: Part, short: Sequence[str], bundle: Path | None, output: Path, limit_s: float) -> str:
    """What went wrong, or nothing. Past its limit the part is stopped, with all that it started; what it has written
    until then stays."""
    arguments = [str(bundle) if argument == NANO else argument for argument in part.arguments]
    command = [sys.executable, "-m", "worldrt.benchmarks.cli", *arguments, *short, "--output", str(output), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        code = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit_s:.0f} s"
    finally:
        _end(process)
    return f"failed with exit code {code}" if code else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, and all that it started."""
    if process.poll() is None:
        for member in family(process.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member, signal.SIGKILL)
        process.wait()


def _missing(part: Part) -> str:
    absent = [name for name in part.needs if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} is not installed"
    return "no GPU" if part.gpu and not machine.has_gpu() else ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
