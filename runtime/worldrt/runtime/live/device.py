"""Worlds on a GPU: the queue keeps its latents there, and the denoiser reads and writes them where they are."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.tensors import Shape
from worldrt.runtime.bound import LEVELS, BoundDenoiser
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.live.model import Told
from worldrt.runtime.live.recipe import Recipe
from worldrt.runtime.live.window import NUMBERS, UNKNOWN
from worldrt.runtime.parallel.bound import SharedBound
from worldrt.runtime.parallel.device_window import DEVICE_WINDOW, whole_window
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.wire import Message
from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.device import DeviceQueue
from worldrt.runtime.queue.device_slots import Alone, Windows


class DeviceQueues:
    """Queues of one denoiser on a GPU for latent frames of `shape` (1, C, H, W). What is bound and captured serves all
    of them in turn; `alone` is held while the GPU is used. Several `ranks` share the windows: `which` tells the others
    what denoiser it is, by its `task` and what it is `of`."""

    def __init__(
        self,
        model: DenoiserModel,
        shape: Shape,
        alone: Alone,
        ranks: Ranks | None = None,
        which: Message | None = None,
    ) -> None:
        self._model, self._shape, self._alone = model, shape, alone
        self._ranks, self._which = ranks, which or {}
        self._windows: dict[tuple[bool, int], Windows] = {}

    def queue(self, of: Recipe, told: Told, feed: Feed, seed: int) -> DeviceQueue:
        """A queue that is not started yet. Raises `InputError` for guidance that a GPU does not have."""
        key = len(of.schedule.terms) > 1, len(told.text[0])
        if key not in self._windows:
            device = self._model.device
            assert isinstance(device, CudaDevice)
            self._windows[key] = Windows(device, lambda frames: self._bind(frames, *key))
        windows = self._windows[key]
        return DeviceQueue(
            of.plan, of.table, windows, self._shape, text=lambda: told.text, feed=feed, seed=seed, alone=self._alone
        )

    def _bind(self, frames: int, guided: bool, rows: int) -> BoundDenoiser:
        _, channels, *size = self._shape
        which = {**self._which, "latents": [1, channels, frames, *size], "guided": guided, "rows": rows}
        return bind_window(self._model, which, self._ranks)


def bind_window(model: DenoiserModel, which: Message, ranks: Ranks | None) -> BoundDenoiser:
    """The denoiser of a window, `which` says its `latents` (1, C, F, H, W), the `rows` of its text and whether it is
    `guided`. Where it is shared, rank 0 has the other ranks come here, too."""
    latents, guided = tuple(which["latents"]), which["guided"]
    _, channels, frames, height, width = latents
    with ExitStack() as stack:
        if ranks is not None:
            stack.enter_context(ranks.turn)
            stack.enter_context(ranks.loading())
            ranks.order({"do": DEVICE_WINDOW, **which, "step": None}, {})
        bound = model.bind(DenoiserShape(channels, frames, height, width, which["rows"]), guided=guided)
        if "position" in bound.inputs:
            bound.fill("position", np.arange(frames, dtype=np.float32))
        for name in UNKNOWN:  # a queue tells by levels which frames are known
            if name in bound.inputs:
                bound.fill(name, np.zeros(bound.inputs[name].shape, np.float32))
        if ranks is None:
            return bound
        assert isinstance(bound, SharedBound)
        given = {"x", *LEVELS} | (model.conditions - {*NUMBERS, *UNKNOWN})
        return whole_window(bound, ranks, latents, given & bound.inputs.keys(), which)
