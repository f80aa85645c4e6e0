"""The denoisers of a bundle on every backend that runs on the device, against ONNX Runtime on the host."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from worldrt.benchmarks.gpu.base import Samples, Setup, row
from worldrt.benchmarks.results import Table
from worldrt.engine.compare import difference
from worldrt.engine.errors import InputError
from worldrt.runtime.denoise import BoundDenoiser, DenoiserShape
from worldrt.runtime.models import Models

BACKENDS = ("onnxruntime", "torch", "tensorrt", "tensorrt_rtx")
LEVEL = 2.0


def run(setup: Setup) -> tuple[list[Table], Samples]:
    """Raises `InputError` without a bundle."""
    if setup.bundle is None:
        raise InputError("the denoiser part needs a bundle: give one with --bundle, or export nano first")
    host = Models.open([setup.bundle], backend="onnxruntime", device="cpu")
    rows: list[tuple[Any, ...]] = []
    samples: Samples = {}
    for task in host.bundles[0].manifest.denoisers:
        expected = _evaluated(_bound(host, task))
        for backend in BACKENDS:
            try:
                bound = _bound(Models.open([setup.bundle], backend=backend, device=setup.device), task)
                d = difference("x0", _evaluated(bound), expected)
                values = [_timed(bound) for _ in range(setup.rounds)]
            except Exception as failure:
                rows.append((task, f"{backend}: {str(failure).splitlines()[0][:160]}", *[None] * 5))
                continue
            samples[f"{task}/{backend}_s"] = values
            rows.append((task, backend, *row(values), d.relative, 1 - d.cosine))
    columns = ("task", "backend", "min_ms", "median_ms", "p90_ms", "max_abs / max", "1 - cosine")
    notes = ("One guided evaluation, both texts in one call, from enqueue to synchronised.",)
    return [Table(f"Denoisers on {setup.device}", columns, tuple(rows), notes)], samples


def _bound(models: Models, task: str) -> BoundDenoiser:
    manifest = models.opener(task).bundle.manifest
    spec, vae, text = manifest.denoisers[task], manifest.vae, manifest.text
    assert vae is not None and text is not None
    width, height = next(iter(spec.sizes.values()))["16:9"]
    frames = 1 + (min(spec.frames.values()) - 1) // vae.temporal if task == "video2world" else 1
    shape = DenoiserShape(vae.channels, frames, height // vae.spatial, width // vae.spatial, text.max_tokens)
    bound = models.denoiser(task).bind(shape, guided=True)
    rng = np.random.default_rng(0)
    values = {
        "x": rng.standard_normal(shape.latents(), np.float32) * np.float32(1 + LEVEL**2) ** 0.5,
        "level": np.full((1, frames), LEVEL, np.float32),
        "position": np.arange(frames, dtype=np.float32),
        "clean": rng.standard_normal(shape.latents(), np.float32),
        "mask": np.eye(1, frames, dtype=np.float32),
    }
    for name, array in values.items():
        if name in bound.inputs:
            bound.fill(name, array)
    bound.fill_text(*rng.standard_normal((2, text.max_tokens, text.width), np.float32))
    return bound


def _evaluated(bound: BoundDenoiser) -> np.ndarray[Any, Any]:
    """x0 of both texts."""
    bound.run()
    assert bound.uncond is not None
    return np.concatenate([bound.device.download(bound.cond), bound.device.download(bound.uncond)])


def _timed(bound: BoundDenoiser) -> float:
    start = time.perf_counter()
    bound.run()
    bound.device.synchronize()
    return time.perf_counter() - start
