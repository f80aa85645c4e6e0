"""The parts one after the other, within a budget of time; what each makes is handed on as it comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldrt.benchmarks.gpu.base import ROOT, Made, Samples, Setup
from worldrt.benchmarks.gpu.child import FAILED, SKIPPED
from worldrt.benchmarks.processes import family
from worldrt.benchmarks.results import FAILED as FAILED_COLUMNS
from worldrt.benchmarks.results import Table
from worldrt.engine.schema import decode, encode

LEAST_S = 5.0
"""With less left, no part is started."""
GRACE_S = 3.0
"""From being asked to end to being killed."""


@dataclass(frozen=True)
class Step:
    """A part: the most time that it gets, and whether it waits for the bundles."""

    name: str
    limit_s: float
    bundles: bool = False


EXPORT = Step("export", 300)
"""Runs beside the parts before the first that needs bundles; left out where all bundles are given."""
STEPS = (
    Step("build", 120),
    Step("kernels", 40),
    Step("rates", 30),
    Step("weights", 120),
    Step("model", 90),
    Step("components", 45),
    Step("block", 60),
    Step("graphs", 40),
    *(Step(f"backend:{name}", 90, True) for name in ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx")),
    Step("tests", 90, True),
    Step("backend:torch+compile", 75, True),
)
"""In the order of what one most wants to know, should the time run out."""


@dataclass
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    result: Path
    log: Path
    start: float
    deadline: float


class Suite:
    """A run of some parts. `save` is called with all tables and samples so far, after every part."""

    def __init__(
        self, setup: Setup, budget_s: float, progress: Callable[[str], None], save: Callable[[Made], None]
    ) -> None:
        self._setup, self._progress, self._save = setup, progress, save
        self._deadline = time.monotonic() + budget_s
        self._outcomes: list[tuple[str, str, float, str]] = []
        self._tables: list[Table] = []
        self._samples: Samples = {}

    def run(self, names: Sequence[str]) -> Made:
        """Run parts by name, in the order of the suite. Nothing that was started outlives this."""
        steps = [step for step in STEPS if step.name in names]
        export: _Running | None = None
        try:
            if any(step.bundles for step in steps) and self._lacks_bundles():
                export = self._start(EXPORT)
            for step in steps:
                if step.bundles and export is not None:
                    self._finish(export)
                    export = None
                if self._left_s() < LEAST_S:
                    self._note(step.name, SKIPPED, 0.0, "no time is left for it")
                else:
                    self._finish(self._start(step))
        finally:
            if export is not None:
                _end(export.process)
        return self._made()

    def _lacks_bundles(self) -> bool:
        return not all((path / "bundle.json").is_file() for path in self._setup.bundles.values())

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _start(self, step: Step) -> _Running:
        """A process that leads a group of its own, so that it can be ended with all that it starts."""
        place = self._setup.scratch / step.name.replace(":", "-")
        given, result, log = (place.with_name(f"{place.name}.{end}") for end in ("setup.json", "json", "log"))
        setup = replace(self._setup, argument=step.name.partition(":")[2])
        given.write_text(json.dumps(encode(setup)), encoding="utf-8")
        self._progress(f"gpu suite: {step.name} on {setup.device}, {self._left_s():.0f} s left")
        plans = {"WORLDRT_PLAN_CACHE": str(self._setup.scratch / "plans")}
        with log.open("wb") as said:
            process = subprocess.Popen(
                _command(step, given, result),
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **plans},
                start_new_session=True,
            )
        start = time.monotonic()
        return _Running(step, process, result, log, start, start + min(step.limit_s, self._left_s()))

    def _finish(self, running: _Running) -> None:
        stopped = False
        try:
            running.process.wait(max(0.0, running.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            stopped = True
        finally:
            _end(running.process)
        seconds, name = time.monotonic() - running.start, running.step.name
        data = _read(running.result)
        outcome, reason = str(data.get("outcome") or FAILED), str(data.get("reason", ""))
        if stopped:
            outcome, reason = FAILED, f"stopped after {seconds:.0f} s"
        elif not data.get("outcome"):
            reason = f"its process ended with {running.process.returncode}"
        self._tables += decode(tuple[Table, ...], data.get("tables", []))
        self._samples |= {f"{name}/{key}": list(values) for key, values in data.get("samples", {}).items()}
        if outcome == FAILED:
            self._progress("\n".join(f"    {line}" for line in _tail(running.log)))
        self._note(name, outcome, seconds, reason)

    def _note(self, name: str, outcome: str, seconds: float, reason: str) -> None:
        self._progress(f"gpu suite: {name}: {outcome.upper()} in {seconds:.1f} s{': ' if reason else ''}{reason}")
        self._outcomes.append((name, outcome, seconds, reason))
        self._save(self._made())

    def _made(self) -> Made:
        """A table of what became of the parts, one for each that failed, then their own."""
        parts = Table("Parts", ("part", "outcome", "seconds", "why"), tuple(self._outcomes))
        failed = [
            Table(name, FAILED_COLUMNS, ((reason or "failed",),))
            for name, outcome, _, reason in self._outcomes
            if outcome == FAILED
        ]
        return [parts, *failed, *self._tables], dict(self._samples)


def names(chosen: Sequence[str] | None) -> list[str]:
    """The parts of a choice: `backend` is all of them. Raises `KeyError` for one that is not there."""
    every = [step.name for step in STEPS]
    if chosen is None:
        return every
    unknown = [name for name in chosen if not any(_is(name, there) for there in every)]
    if unknown:
        raise KeyError(unknown[0])
    return [there for there in every if any(_is(name, there) for name in chosen)]


def _command(step: Step, setup: Path, result: Path) -> list[str]:
    return [sys.executable, "-m", "worldrt.benchmarks.gpu.child", step.name, str(setup), str(result)]


def _is(name: str, there: str) -> bool:
    return name in (there, there.partition(":")[0])


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return data
    except (OSError, ValueError):
        return {}


def _tail(log: Path, lines: int = 15) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    members = family(process.pid) if process.poll() is None else {}
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, ending)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)  # and no longer: a process that waits for a broken driver does not even die
    for member in members:  # those that lead a group of their own, as builders of engines do
        with suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
