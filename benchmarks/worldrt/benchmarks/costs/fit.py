"""Rates at which the published runs went: two of each GPU, and three numbers that all of them share.

    seconds = linear / gemm + attention / fused + passes * hidden / bandwidth + vae / (share * gemm) + beside

The two rates of a GPU follow from the three shared numbers by least squares of relative errors; these are found on a
grid, and by descent from there, by the worst of all errors. Nothing else is fitted: FLOPs and bytes are those of the
networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from itertools import product

from worldrt.benchmarks.costs.gpus import GPU, gpu
from worldrt.benchmarks.costs.published import DENSE_S, EVALUATIONS, Case, times_s
from worldrt.benchmarks.costs.runs import RunWork, run_work


@dataclass(frozen=True)
class Shared:
    """`passes`: how often, in each block, a tensor of the hidden state's size is read or written by what is computed
    value by value. `vae_share`: the rate of the VAE over that of matrix products. `beside_s`: what no tensor explains
    (reading and writing files, the checks of prompt and frames, start-up)."""

    passes: float
    vae_share: float
    beside_s: float


@dataclass(frozen=True)
class Rates:
    """FLOP/s of matrix products with weights, and of attention."""

    gemm: float
    attention: float
    shared: Shared


BOUNDS = (Shared(0, 0.02, 0), Shared(120, 1.0, 10))
SCALE, TINY = 1e15, 1e-6
"""FLOP/s that rates are counted in; the smallest inverse of one, where times contradict each other."""
GRID = ((15, 30, 60, 90), (0.05, 0.1, 0.2), (2, 4, 6, 8))
"""Where the descent may begin: at the best of all combinations."""


@lru_cache
def fitted() -> Mapping[str, Rates]:
    """By the name of a GPU."""
    best, step = min((Shared(*numbers) for numbers in product(*GRID)), key=_worst), 0.25
    error = _worst(best)
    while step > 0.004:
        better = min(_around(best, step), key=_worst)
        if _worst(better) < error - 1e-6:
            best, error = better, _worst(better)
        else:
            step /= 2
    return {name: _rates(gpu(name), best) for name in DENSE_S}


def seconds(run: RunWork, device: GPU, rates: Rates, evaluations: int = EVALUATIONS) -> float:
    """A published run by the formula: the VAE encodes all frames and decodes them."""
    linear, attended, fixed = _terms(run, device, rates.shared, evaluations)
    return linear / rates.gemm + attended / rates.attention + fixed


def errors(rates: Mapping[str, Rates] | None = None) -> dict[tuple[str, Case], float]:
    """Relative: predicted over published, less 1."""
    known = fitted() if rates is None else rates
    return {
        (name, case): seconds(_run(case), gpu(name), known[name]) / published - 1
        for name in known
        for case, published in times_s(name).items()
    }


def _worst(shared: Shared) -> float:
    return max(map(abs, errors({name: _rates(gpu(name), shared) for name in DENSE_S}).values()))


def _around(shared: Shared, step: float) -> list[Shared]:
    """Neighbours: each number a factor up and down, within bounds."""
    found = []
    for name, low, high in zip(vars(shared), astuple(BOUNDS[0]), astuple(BOUNDS[1]), strict=True):
        for factor in (1 + step, 1 / (1 + step)):
            found.append(replace(shared, **{name: min(high, max(low, getattr(shared, name) * factor))}))
    return found


def _rates(device: GPU, shared: Shared) -> Rates:
    """Least squares of relative errors, by the normal equations, whose sums are the same on every machine."""
    aa = ab = bb = ay = by = 0.0
    for case, published in times_s(device.name).items():
        linear, attended, fixed = _terms(_run(case), device, shared)
        a, b, y = linear / published / SCALE, attended / published / SCALE, 1 - fixed / published
        aa, ab, bb, ay, by = aa + a * a, ab + a * b, bb + b * b, ay + a * y, by + b * y
    whole = aa * bb - ab * ab
    gemm, attention = (ay * bb - by * ab) / whole, (by * aa - ay * ab) / whole
    return Rates(SCALE / max(gemm, TINY), SCALE / max(attention, TINY), shared)


def _terms(run: RunWork, device: GPU, shared: Shared, evaluations: int = EVALUATIONS) -> tuple[float, float, float]:
    """FLOPs that go at the rate of matrix products, FLOPs of attention, and seconds that no rate changes."""
    vae = run.encode.flops + run.decode.flops
    linear = evaluations * run.evaluation.linear + vae / shared.vae_share
    passes_s = evaluations * run.dit.blocks * shared.passes * run.hidden_bytes / device.bandwidth
    return linear, evaluations * run.evaluation.attention, passes_s + shared.beside_s


def _run(case: Case) -> RunWork:
    return run_work(case.size, case.resolution, case.fps, case.sparse)
