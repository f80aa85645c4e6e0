"""A bound denoiser as the model of queues: windows of any number of frames, each frame at a level of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from worldrt.engine.errors import BundleError
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.live.model import Array, Float32

NUMBERS = ("position", "view")
"""Of slots and views: 0, 1, 2, ..."""
UNKNOWN = ("mask", "clean")
"""What tells a model of clips which of its frames are known. A queue tells by levels, so none is."""


@dataclass
class _Window:
    bound: BoundDenoiser
    filled: dict[str, Array] = field(default_factory=dict)


class WindowDenoiser:
    """`x0(branch, text, x, level, conditions)`, one call at a time from any thread. Buffers are bound once for each
    number of frames and each branch of guidance, since what is the same array as in the call before stays where it is.

    `given` are the conditions that frames bring. Raises `BundleError` where the denoiser wants others.
    """

    def __init__(self, model: DenoiserModel, given: set[str], *, lock: threading.Lock | None = None) -> None:
        wanted = model.conditions - {*NUMBERS, *UNKNOWN}
        if wanted != given - {"text"}:
            raise BundleError(
                f"this denoiser takes the conditions {sorted(wanted)}, and frames of the queue bring {sorted(given)}; "
                "export the bundle again"
            )
        self._model, self._lock = model, lock or threading.Lock()
        self._windows: dict[tuple[str, tuple[int, ...]], _Window] = {}

    def x0(self, branch: str, text: Float32, x: Float32, level: Float32, conditions: Mapping[str, Array]) -> Float32:
        """x0 (1, C, F, H, W) of x and level (1, F); text (N, D), conditions (1, F, ...). With views, x is (1, C, F, V,
        H, W), and the text that of each frame and view, (1, F, V, N, D)."""
        with self._lock:
            window = self._window(branch, x, text.shape[-2])
            bound = window.bound
            if window.filled.get("text") is not text:
                bound.fill_text(text, None)
                window.filled["text"] = text
            bound.fill("x", x)
            bound.fill_levels(level)
            for name, values in conditions.items():
                if name != "text" and window.filled.get(name) is not values:
                    bound.fill(name, values)
                    window.filled[name] = values
            bound.step(("x0",), bound.run)
            made: Float32 = bound.device.download(bound.cond)
            return made

    def _window(self, branch: str, x: Float32, rows: int) -> _Window:
        _, channels, frames, *views, height, width = x.shape
        key = branch, x.shape
        if key not in self._windows:
            shape = DenoiserShape(channels, frames, height, width, rows, views=views[0] if views else None)
            bound = self._model.bind(shape, guided=False)
            for name, count in zip(NUMBERS, (frames, *views), strict=False):
                if name in bound.inputs:
                    bound.fill(name, np.arange(count, dtype=np.float32))
            for name in UNKNOWN:
                if name in bound.inputs:
                    bound.fill(name, np.zeros(bound.inputs[name].shape, np.float32))
            self._windows[key] = _Window(bound)
        return self._windows[key]
