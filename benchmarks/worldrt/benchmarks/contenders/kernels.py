"""The kernels on host memory, compiled or in numpy. The choice is made when the process loads them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from worldrt.engine.errors import BackendError

SHAPES = {"nano": (1, 16, 5, 10, 16), "480p": (1, 16, 24, 54, 96), "720p": (1, 16, 24, 88, 160)}
"""Latents (B, C, T, H, W) of a clip; its frames are 8 H x 8 W pixels."""


class Kernels:
    """Stages are `update` and `yuv420` by size: a guided second-order update in place, and four frames to NV12."""

    def __init__(self) -> None:
        from worldrt.kernels import MultistepUpdate, rgb_to_yuv420

        rng = np.random.default_rng(0)
        self.calls: dict[str, Callable[[], object]] = {}
        for size, shape in SHAPES.items():
            x, x0, uncond, prev = rng.standard_normal((4, *shape), np.float32)
            update = MultistepUpdate(x, x0, uncond=uncond, guidance=7.0, prev=prev, out=x, guided_out=prev)
            rows = np.tile([0.9, 0.1, 0.05, 0.0], (shape[2], 1))
            self.calls[f"update {size}"] = partial(update, rows)
            frames = rng.integers(0, 256, (4, 8 * shape[3], 8 * shape[4], 3), np.uint8)
            planes = rgb_to_yuv420(frames, layout="nv12")
            self.calls[f"yuv420 {size}"] = partial(rgb_to_yuv420, frames, layout="nv12", out=planes)

    def round(self, index: int) -> dict[str, Any]:
        """Seconds of one call of each, the mean over at least 5 ms."""
        return {"seconds": {name: _time(call) for name, call in self.calls.items()}}


def _time(call: Callable[[], object]) -> float:
    call()
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < 5e-3 or not count:
        call()
        count += 1
    return spent / count


def open(native: bool) -> Kernels:
    """Raises `BackendError` where the compiled kernels are wanted and absent."""
    os.environ["WORLDRT_KERNELS"] = "1" if native else "0"
    from worldrt.kernels import status

    found = status()
    if native and found.implementation != "native":
        raise BackendError("; ".join(found.notes))
    return Kernels()
