"""Worlds on a GPU: the queue keeps its latents there, and the denoiser reads and writes them where they are."""

from __future__ import annotations

import numpy as np

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.tensors import Shape
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.live.model import Told
from worldrt.runtime.live.recipe import Recipe
from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.device import DeviceQueue
from worldrt.runtime.queue.device_slots import Alone, Windows


class DeviceQueues:
    """Queues of one denoiser on a GPU for latent frames of `shape` (1, C, H, W). What is bound and captured serves all
    of them in turn; `alone` is held while the GPU is used."""

    def __init__(self, model: DenoiserModel, shape: Shape, alone: Alone) -> None:
        self._model, self._shape, self._alone = model, shape, alone
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
        _, channels, height, width = self._shape
        bound = self._model.bind(DenoiserShape(channels, frames, height, width, rows), guided=guided)
        if "position" in bound.inputs:
            bound.fill("position", np.arange(frames, dtype=np.float32))
        for name in ("mask", "clean"):  # a queue tells by levels which frames are known
            if name in bound.inputs:
                bound.fill(name, np.zeros(bound.inputs[name].shape, np.float32))
        return bound
