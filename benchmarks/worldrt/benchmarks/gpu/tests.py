"""The tests that are marked `gpu`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

from worldrt.benchmarks.gpu.base import ROOT, CheckError, Made, MissingError, Setup, absent
from worldrt.benchmarks.results import Table

NOTHING_COLLECTED = 5


def run(setup: Setup) -> Iterator[Made]:
    """On `cpu` they are collected, and skip. Raises `CheckError` where one fails."""
    if absent("pytest"):
        raise MissingError("pytest is not installed")
    folders = ["tests/gpu", "tests/kernels"]
    command = [sys.executable, "-m", "pytest", *folders, "-m", "gpu and not slow", "-p", "no:cacheprovider", "-q"]
    bundle = setup.found()
    environment = os.environ | ({"WORLDRT_TEST_BUNDLE": str(bundle)} if bundle else {})
    done = subprocess.run([*command, "-rs"], cwd=ROOT, capture_output=True, text=True, env=environment)
    print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    summary = re.sub(r"^=+ | =+$", "", lines[-1]) if lines else f"exit code {done.returncode}"
    yield [Table("Tests on a GPU", ("outcome",), ((summary,),))], {}
    if done.returncode not in (0, NOTHING_COLLECTED):
        raise CheckError(summary)
