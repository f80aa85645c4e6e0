"""A bound denoiser as the model of queues: windows of any number of frames, each frame at a level of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.errors import BundleError
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.live.model import Array, Float32

POSITION = "position"
UNKNOWN = ("mask", "clean")
"""What tells a model of clips which of its frames are known. A queue tells by levels, so none is."""


@dataclass
class _Window:
    bound: BoundDenoiser
    text: Any = None


class WindowDenoiser:
    """`x0(branch, text, x, level, conditions)`, one call at a time from any thread. Buffers are bound once for each
    number of frames and each branch of guidance, since a text stays where it is from call to call.

    `given` are the conditions that frames bring. Raises `BundleError` where the denoiser wants others.
    """

    def __init__(self, model: DenoiserModel, given: set[str], *, lock: threading.Lock | None = None) -> None:
        wanted = model.conditions - {POSITION, *UNKNOWN}
        if wanted != given:
            raise BundleError(
                f"this denoiser takes the conditions {sorted(wanted)}, and frames of the queue bring {sorted(given)}; "
                "export the bundle again"
            )
        self._model, self._lock = model, lock or threading.Lock()
        self._windows: dict[tuple[str, int, int, int], _Window] = {}

    def x0(self, branch: str, text: Float32, x: Float32, level: Float32, conditions: Mapping[str, Array]) -> Float32:
        """x0 (1, C, F, H, W) of x and level (1, F); text (N, D), conditions (1, F, ...)."""
        with self._lock:
            window = self._window(branch, x, len(text))
            bound = window.bound
            if window.text is not text:
                bound.fill_text(text, None)
                window.text = text
            bound.fill("x", x)
            bound.fill_levels(level)
            for name, values in conditions.items():
                bound.fill(name, values)
            bound.step(("x0",), bound.run)
            made: Float32 = bound.device.download(bound.cond)
            return made

    def _window(self, branch: str, x: Float32, rows: int) -> _Window:
        _, channels, frames, height, width = x.shape
        key = (branch, frames, height, width)
        if key not in self._windows:
            shape = DenoiserShape(channels, frames, height, width, rows)
            bound = self._model.bind(shape, guided=False)
            if POSITION in bound.inputs:
                bound.fill(POSITION, np.arange(frames, dtype=np.float32))
            for name in UNKNOWN:
                if name in bound.inputs:
                    bound.fill(name, np.zeros(bound.inputs[name].shape, np.float32))
            self._windows[key] = _Window(bound)
        return self._windows[key]
