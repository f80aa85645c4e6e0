"""A bound denoiser as the model of queues: windows of any number of frames, each frame at a level of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from worldrt.engine.errors import BundleError
from worldrt.runtime.bound import LEVELS, BoundDenoiser
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.live.model import Array, Float32

NUMBERS = ("position", "view")
"""Of slots and views: 0, 1, 2, ..."""
BRANCHES = 2
UNKNOWN = ("mask", "clean")
"""What tells a model of clips which of its frames are known. A queue tells by levels, so none is."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a branch of guidance sees of a window: its text, x, levels and conditions, as of `WindowDenoiser.x0`."""

    branch: str
    text: Float32
    x: Float32
    level: Float32
    conditions: Mapping[str, Array]


@dataclass
class _Window:
    bound: BoundDenoiser
    filled: dict[str, Array] = field(default_factory=dict)

    def fill_both(self, both: Sequence[Seen]) -> None:
        """Write what two branches see that go through one call, each into its half; as `fill` otherwise."""
        if any([self._is_new(f"text {i}", one.text) for i, one in enumerate(both)]):  # both are known afterwards
            self.bound.fill_text(both[0].text, both[1].text)
        for i, one in enumerate(both):
            changing = {"x": one.x} | dict(zip(LEVELS, (one.level, one.level[:, -1:]), strict=True))
            kept = {
                n: values for n, values in one.conditions.items() if n != "text" and self._is_new(f"{n} {i}", values)
            }
            for name, values in (changing | kept).items():
                if name in self.bound.inputs:
                    self.bound.fill_branch(i, name, values)

    def _is_new(self, name: str, values: Array) -> bool:
        known = self.filled.get(name) is values
        self.filled[name] = values
        return not known

    def fill(self, seen: Seen) -> None:
        """Write what a branch sees; what is the same array as before is there already."""
        if self.filled.get("text") is not seen.text:
            self.bound.fill_text(seen.text, None)
            self.filled["text"] = seen.text
        self.bound.fill("x", seen.x)
        self.bound.fill_levels(seen.level)
        for name, values in seen.conditions.items():
            if name != "text" and self.filled.get(name) is not values:
                self.bound.fill(name, values)
                self.filled[name] = values


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
        self._windows: dict[tuple[str, tuple[int, ...], bool], _Window] = {}

    def x0(self, branch: str, text: Float32, x: Float32, level: Float32, conditions: Mapping[str, Array]) -> Float32:
        """x0 (1, C, F, H, W) of x and level (1, F); text (N, D), conditions (1, F, ...). With views, x is (1, C, F, V,
        H, W), and the text that of each frame and view, (1, F, V, N, D)."""
        return self.x0s([Seen(branch, text, x, level, conditions)])[0]

    def x0s(self, seen: Sequence[Seen]) -> list[Float32]:
        """x0 of each. Two branches of guidance go through one call where the model is to take them so."""
        if len(seen) == BRANCHES and self._model.batched:
            return self._at_once(seen)
        return [self._evaluated(one) for one in seen]

    def _at_once(self, both: Sequence[Seen]) -> list[Float32]:
        with self._lock:
            window = self._window(both[0], guided=True)
            window.fill_both(both)
            bound = window.bound
            bound.step(("x0",), bound.run)
            assert bound.uncond is not None
            return [bound.device.download(part) for part in (bound.cond, bound.uncond)]

    def _evaluated(self, seen: Seen) -> Float32:
        with self._lock:
            window = self._window(seen)
            window.fill(seen)
            bound = window.bound
            bound.step(("x0",), bound.run)
            made: Float32 = bound.device.download(bound.cond)
            return made

    def _window(self, seen: Seen, *, guided: bool = False) -> _Window:
        """What a branch is evaluated through. `guided`: with the other one at once."""
        _, channels, frames, *views, height, width = seen.x.shape
        key = seen.branch, seen.x.shape, guided
        if key not in self._windows:
            rows = seen.text.shape[-2]
            shape = DenoiserShape(channels, frames, height, width, rows, views=views[0] if views else None)
            bound = self._model.bind(shape, guided=guided)
            for name, count in zip(NUMBERS, (frames, *views), strict=False):
                if name in bound.inputs:
                    bound.fill(name, np.arange(count, dtype=np.float32))
            for name in UNKNOWN:
                if name in bound.inputs:
                    bound.fill(name, np.zeros(bound.inputs[name].shape, np.float32))
            self._windows[key] = _Window(bound)
        return self._windows[key]
