"""`trt-bench overhead`: what the runtime itself costs per step, when the graphs cost nothing."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.statistics import summarize
from worldrt.kernels import MultistepUpdate, rgb_to_yuv420
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.samplers import SamplerTable, table
from worldrt.runtime.sampling import sample

Samples = dict[str, list[float]]
STEPS = 100
DEVICE_CALLS = ("empty", "upload", "download", "copy", "synchronize")
SMALL = (1, 16, 2, 2, 2)
"""Latents so small that only the cost of a call is left."""


def run(bundle: Path, rounds: int) -> tuple[list[Table], Samples]:
    """Per step of the sampling loop with the `null` backend, and per call of its parts."""
    steps: Samples = {}
    growth, counts = [], []
    for guidance in ("batched", "sequential"):
        models = Models.open([bundle], backend="null", guidance=guidance)
        for task, frames in (("text2image", 1), ("video2world", 2)):
            form = models.denoiser(task).spec.form
            name = f"{task}, {form} form, {guidance} guidance"
            bound, rows = _bound(models, task, frames)
            steps[name] = [_step_s(bound, rows) for _ in range(rounds + 1)][1:]
            growth.append((name, *_allocations(bound, rows)))
            counts.append((name, *_device_calls(bound, rows)))
    calls = {name: [_call_s(call) for _ in range(rounds + 1)][1:] for name, call in _calls().items()}
    made = [
        _table("Time of a step with graphs that do nothing", "loop", steps),
        Table(
            "Memory allocated in a step after the first",
            ("loop", "peak_bytes", "of tensor size", "latents_bytes"),
            tuple(growth),
            ("The most that was allocated at once within a step; the latents are 4 KiB here, to be seen among it.",),
        ),
        Table(
            "Calls of the device in a step after the first",
            ("loop", *DEVICE_CALLS),
            tuple(counts),
            ("The most in any step. empty: memory is allocated; upload, download and copy: memory is copied.",),
        ),
        _table("Time of a call", "call", calls),
    ]
    return made, {f"{name}_s": values for name, values in (steps | calls).items()}


def _bound(models: Models, task: str, frames: int) -> tuple[BoundDenoiser, SamplerTable]:
    spec = models.denoiser(task).spec
    vae, text = models.opener(task).bundle.manifest.vae, models.opener(task).bundle.manifest.text
    assert vae is not None and text is not None
    height, width = 8, 8 // frames
    shape = DenoiserShape(vae.channels, frames, height, width - width % 2, text.max_tokens)
    sampler = spec.sampler
    rows = table(sampler.kind, STEPS, sampler.sigma_max, sampler.sigma_min, sampler.order)
    return models.denoiser(task).bind(shape, guided=True), rows


def _loop(bound: BoundDenoiser, rows: SamplerTable, each: Callable[[int], None]) -> None:
    observer = Observer()
    noise = np.zeros(bound.x.shape, np.float32)
    for done in sample(bound, rows, noise, guidance=7.0):
        observer.progress("sampling", done, len(rows))
        each(done)


def _step_s(bound: BoundDenoiser, rows: SamplerTable) -> float:
    times = np.empty(len(rows))

    def stamp(done: int) -> None:
        times[done - 1] = time.perf_counter()

    _loop(bound, rows, stamp)
    return float(times[-1] - times[0]) / (len(rows) - 1)


def _allocations(bound: BoundDenoiser, rows: SamplerTable) -> tuple[int, int, int]:
    """The largest growth within a step, the number of steps with one of at least the latents' size, and that size."""
    growth: list[int] = []
    before = [0]

    def watch(done: int) -> None:
        peak = tracemalloc.get_traced_memory()[1]
        if done > 1:
            growth.append(peak - before[0])
        tracemalloc.reset_peak()
        before[0] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        _loop(bound, rows, watch)
    finally:
        tracemalloc.stop()
    return max(growth), sum(size >= bound.x.nbytes for size in growth), bound.x.nbytes


def _device_calls(bound: BoundDenoiser, rows: SamplerTable) -> tuple[int, ...]:
    """The most calls of each kind in a step."""
    seen: list[dict[str, int]] = []
    count = dict.fromkeys(DEVICE_CALLS, 0)
    kind = type(bound.device)

    def counted(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any) -> object:
            count[name] += 1
            return real(*args)

        return call

    def watch(done: int) -> None:
        seen.append(dict(count))

    kept = {name: getattr(kind, name) for name in DEVICE_CALLS}
    try:
        for name, real in kept.items():
            setattr(kind, name, counted(name, real))
        _loop(bound, rows, watch)
    finally:
        for name, real in kept.items():
            setattr(kind, name, real)
    return tuple(max(b[name] - a[name] for a, b in pairwise(seen)) for name in DEVICE_CALLS)


def _calls() -> dict[str, Callable[[], object]]:
    x, x0, uncond, prev = np.zeros((4, *SMALL), np.float32)
    update = MultistepUpdate(x, x0, uncond=uncond, guidance=7.0, prev=prev, out=x, guided_out=prev)
    rows = np.zeros((SMALL[2], 4))
    frame = np.zeros((1, 2, 2, 3), np.uint8)
    planes = rgb_to_yuv420(frame, layout="nv12")
    return {
        "MultistepUpdate, bound": lambda: update(rows),
        "rgb_to_yuv420": lambda: rgb_to_yuv420(frame, layout="nv12", out=planes),
    }


def _call_s(call: Callable[[], object], count: int = 1000) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def _table(title: str, what: str, samples: Samples) -> Table:
    rows = []
    for name, values in samples.items():
        s = summarize([1e6 * value for value in values])
        rows.append((name, s.count, s.minimum, s.median, s.p90, s.p95, s.p99, s.maximum))
    columns = (what, "rounds", "min_us", "p50_us", "p90_us", "p95_us", "p99_us", "max_us")
    return Table(title, columns, tuple(rows))
