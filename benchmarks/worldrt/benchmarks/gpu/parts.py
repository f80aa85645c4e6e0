"""The parts one after the other; one that fails is a line in the report, and the rest goes on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from worldrt.benchmarks.gpu.base import Samples, Setup
from worldrt.benchmarks.results import FAILED, Table

__all__ = ["Setup", "run"]


def run(names: Sequence[str], setup: Setup, progress: Callable[[str], None]) -> tuple[list[Table], Samples]:
    tables: list[Table] = []
    samples: Samples = {}
    for name in names:
        progress(f"gpu: {name} on {setup.device}")
        try:
            made, measured = importlib.import_module(f"worldrt.benchmarks.gpu.{name}").run(setup)
        except Exception as failure:
            line = f"{type(failure).__name__}: {failure}".splitlines()[0]
            progress(f"gpu: {name} failed: {line}")
            made, measured = [Table(name, FAILED, ((line,),))], {}
        tables += made
        samples |= {f"{name}/{key}": values for key, values in measured.items()}
    return tables, samples
