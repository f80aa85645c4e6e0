"""What the parts share: what they are given, how they say that something is missing, and how time is taken."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.statistics import summarize
from worldrt.engine.packaged import packaged

Samples = dict[str, list[float]]
Made = tuple[list[Table], Samples]
ROOT = Path(__file__).parents[4]
"""The checkout."""


class MissingError(Exception):
    """Something that this part needs is not on this machine: the part is skipped, and says why."""


class CheckError(Exception):
    """The part ran to its end and found something wrong, which its tables show."""


@dataclass(frozen=True)
class Setup:
    """`device` is cpu or cuda. `argument` is what follows the colon in the name of a part. `bundles` are folders by
    precision, that may not be there; `scratch` is for files that are thrown away."""

    device: str
    rounds: int
    scratch: Path
    argument: str = ""
    bundles: Mapping[str, Path] = field(default_factory=dict)

    @property
    def dry(self) -> bool:
        """Whether this only shows that the code runs: shapes are tiny."""
        return self.device == "cpu"

    def found(self, precision: str = "float32") -> Path | None:
        """The bundle that was given or exported; in float32 else that of the package."""
        folder = self.bundles.get(precision)
        if folder is not None and (folder / "bundle.json").is_file():
            return folder
        return packaged("nano") if precision == "float32" else None

    def bundle(self, precision: str = "float32") -> Path:
        """The same; raises `MissingError`."""
        folder = self.found(precision)
        if folder is None:
            raise MissingError(f"no {precision} bundle of nano: none was given, and none could be exported here")
        return folder


class Part(Protocol):
    """What a module here holds: what it yields is kept even where it is stopped later."""

    def run(self, setup: Setup) -> Iterator[Made]: ...


def timed(setup: Setup, call: Callable[[], object], *, warmups: int = 3, limit_s: float = 3.0) -> list[float]:
    """Seconds of single calls: by CUDA events on torch's current stream, by the clock on the CPU.

    Each is an NVTX range. At most `setup.rounds` calls, and as many as go into `limit_s`, but no fewer than 3.
    """
    for _ in range(warmups):
        call()
    if setup.dry:
        return [_clocked(call) for _ in range(setup.rounds)]
    import torch

    torch.cuda.synchronize()

    def once() -> None:
        call()
        torch.cuda.synchronize()

    first = _clocked(once)
    rounds = min(setup.rounds, max(3, int(limit_s / max(first, 1e-6))))
    event: Any = torch.cuda.Event
    pairs = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(rounds)]
    for number, (start, end) in enumerate(pairs):
        torch.cuda.nvtx.range_push(f"round {number}")  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def row(samples: list[float]) -> tuple[float, float, float]:
    """min, median and p90 in milliseconds."""
    s = summarize([1e3 * value for value in samples])
    return s.minimum, s.median, s.p90


def relative_error(actual: Any, reference: Any) -> float:
    """The largest difference of two torch tensors over the largest value, in float64."""
    a, r = actual.double().cpu(), reference.double().cpu()
    return float((a - r).abs().max() / r.abs().max())


def absent(*names: str) -> list[str]:
    """Those of some packages that cannot be imported here; none is imported."""

    def found(name: str) -> bool:
        try:
            return importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            return False

    return [name for name in names if not found(name)]


def first_line(failure: BaseException) -> str:
    """A failure in one line."""
    return f"{type(failure).__name__}: {failure}".splitlines()[0][:200]


def _clocked(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
