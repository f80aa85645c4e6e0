"""`trt-run compare`: every component of a bundle on two or more backends side by side, on the same seeded inputs.

The first backend is the reference. One that refuses a component fails that component, and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, log10
from typing import Any

import numpy as np

from worldrt.engine.bundle import Component, Denoiser
from worldrt.engine.compare import Difference, difference
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import WorldrtError
from worldrt.runtime import probes
from worldrt.runtime.models import Models
from worldrt.runtime.probes import Array, Case, Outputs, Part, Probe

TOLERANCES = {"float32": 5e-3, "float16": 2e-2, "bfloat16": 5e-2, "8-bit": 1e-1}
"""Largest difference over the largest value of the reference, by precision. Float32 leaves room for TF32."""
OF_A_RUN = 4.0
"""Errors of a run that goes on from its own results grow, and guidance g multiplies them by up to 1 + 2 g."""
BLIND = "null"
"""The backend that computes nothing: it is timed and not compared."""


@dataclass(frozen=True)
class Row:
    """One tensor of one backend against the reference. `psnr_db` of uint8 pictures. `problem` where there is none."""

    component: str
    tensor: str
    backend: str
    tolerance: float | None = None
    difference: Difference | None = None
    psnr_db: float | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool | None:
        """None where nothing is to be compared.

        Pictures: the root mean square error is at most the tolerance, of 255. Else: the relative difference is at most
        the tolerance, and the cosine is nearer to 1 than its square.
        """
        if self.problem:
            return False
        if self.difference is None or self.tolerance is None:
            return None
        if self.psnr_db is not None:
            return self.psnr_db >= -20 * log10(self.tolerance)
        return self.difference.within(self.tolerance) and 1 - self.difference.cosine <= self.tolerance**2


@dataclass(frozen=True)
class Timing:
    """Seconds of one unit of work on one backend, one per round."""

    component: str
    work: str
    backend: str
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return float(np.median(self.seconds))


@dataclass(frozen=True)
class Comparison:
    """`rows` of each backend but the reference, and `timings` of all."""

    backends: tuple[str, ...]
    rows: tuple[Row, ...]
    timings: tuple[Timing, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed is not False for row in self.rows)


@dataclass
class _Measured:
    """Of one part on one backend."""

    outputs: Outputs = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    problem: str | None = None


def run(
    contenders: Mapping[str, Models],
    chosen: Sequence[Part],
    case: Case,
    rounds: int,
    *,
    tolerances: Mapping[str, float] = TOLERANCES,
    together: bool = True,
) -> Comparison:
    """Compare some parts on all contenders by name, the first of which is the reference. Each holds one bundle.

    `together`: all contenders hold a part at the same time and are timed in turns; else one after the other, in the
    memory of one.
    """
    names = list(contenders)
    measured: dict[tuple[Part, str], _Measured] = {}
    for group in [names] if together else [[name] for name in names]:
        for part in chosen:
            of_part = _measure({name: contenders[name] for name in group}, part, case, rounds)
            measured |= {(part, name): value for name, value in of_part.items()}
    reference, rows, timings = names[0], list[Row](), list[Timing]()
    for part in chosen:
        title = "/".join(filter(None, part))
        for name in names:
            own = measured[part, name]
            limit = max(_tolerance(_component(contenders[n], part), tolerances) for n in (reference, name))
            if own.problem or (name != reference and contenders[name].execution.backend != BLIND):
                rows += _rows(title, name, own, measured[part, reference], limit)
            timings += [Timing(title, work, name, tuple(seconds)) for work, seconds in own.seconds.items()]
    return Comparison(tuple(names), tuple(rows), tuple(timings))


def _measure(group: Mapping[str, Models], part: Part, case: Case, rounds: int) -> dict[str, _Measured]:
    """Load a part on some contenders, run it once for its outputs, time it in turns, and let it go."""
    measured = {name: _Measured() for name in group}
    loaded: dict[str, Probe] = {}
    for name, models in group.items():
        with _noted(measured[name]):
            _make_current(models)
            loaded[name] = probes.probe(models, part, case)
            for tensor, array in loaded[name].outputs():
                measured[name].outputs[tensor] = array
    for index in range(rounds):
        for name in list(loaded)[:: -1 if index % 2 else 1]:
            for work, (do, units) in loaded[name].timed.items():
                with _noted(measured[name]):
                    _make_current(group[name])
                    start = time.perf_counter()
                    do()
                    measured[name].seconds.setdefault(work, []).append((time.perf_counter() - start) / units)
    for models in group.values():
        models.close()
    return measured


def _make_current(models: Models) -> None:
    """Two backends may be on two GPUs."""
    device = models.execution.opened_device
    if isinstance(device, CudaDevice):
        device.make_current()


@contextmanager
def _noted(measured: _Measured) -> Iterator[None]:
    """What fails is noted, and ends no other part; libraries say most of it by a RuntimeError."""
    try:
        yield
    except (WorldrtError, RuntimeError, MemoryError) as error:
        measured.problem = measured.problem or " ".join(str(error).split()) or type(error).__name__


def _rows(component: str, name: str, own: _Measured, reference: _Measured, tolerance: float) -> list[Row]:
    rows = []
    for tensor, members in probes.tensors(reference.outputs):
        if own is reference or members[0] not in own.outputs:
            continue
        limit = tolerance * (OF_A_RUN if tensor.startswith(probes.STEPS_PREFIX) or tensor == probes.FRAMES else 1)
        pairs = [(own.outputs[member], reference.outputs[member]) for member in members]
        worst = max((difference(tensor, *pair) for pair in pairs), key=lambda d: (d.relative, -d.cosine))
        picture = pairs[0][1].dtype == np.uint8
        rows.append(Row(component, tensor, name, limit, worst, psnr_db(*pairs[0]) if picture else None))
    problem = own.problem or (reference.problem and f"the reference failed: {reference.problem}")
    return [*rows, Row(component, "", name, problem=problem)] if problem else rows


def psnr_db(actual: Array, reference: Array) -> float:
    """Peak signal to noise ratio of uint8 pictures: 10 log10(255^2 / mean squared error)."""
    error = float(np.mean((actual.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return 10 * log10(255**2 / error) if error else inf


def _component(models: Models, part: Part) -> Component:
    return models.bundles[0].manifest.components()[part[0]]


def _tolerance(component: Component, tolerances: Mapping[str, float]) -> float:
    quantized = isinstance(component, Denoiser) and component.quantization is not None
    return tolerances["8-bit" if quantized else component.precision]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Plain data without infinities: what is not finite is null."""

    def finite(value: float | None) -> float | None:
        return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")

    rows = [
        {
            "component": row.component,
            "tensor": row.tensor,
            "backend": row.backend,
            **{name: finite(getattr(row.difference, name, None)) for name in ("max_abs", "relative", "cosine")},
            "psnr_db": finite(row.psnr_db),
            "equal": row.difference is not None and row.difference.max_abs == 0,
            "tolerance": row.tolerance,
            "passed": row.passed,
            "problem": row.problem,
        }
        for row in comparison.rows
    ]
    timings = [
        {"component": t.component, "work": t.work, "backend": t.backend, "median_s": t.median_s, "seconds": t.seconds}
        for t in comparison.timings
    ]
    return {"backends": comparison.backends, "passed": comparison.passed, "rows": rows, "timings": timings}
