"""The workers of a world: one runs the queue of latents, another one decodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from worldrt.runtime.live.model import Float32, LatentDecoder, LiveModel, Picture, Told
from worldrt.runtime.live.streams import StreamModel
from worldrt.runtime.parallel.pools.base import Make
from worldrt.runtime.parallel.pools.worker import Worker
from worldrt.runtime.queue import state as queue_state
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.queue import Queue


class DenoiseWorker(Worker):
    """A stream of `start` and then of `row`. Conditions come with the call in which their frames enter the queue."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._model: LiveModel = make()
        self._told, self._seed = Told(None), 0
        self._given: deque[Condition | None] = deque()
        self._queue: Queue | None = None

    def load(self) -> None:
        getattr(self._model, "load_denoiser", lambda: None)()

    def encode(self, prompt: str) -> Any:
        """As of the model."""
        return self._model.encode(prompt)

    def first(self, text: Any, seed: int, base: Sequence[str]) -> Float32 | None:
        """As of the model."""
        return self._model.first(Told(text), seed, base)

    def start(self, text: Any, seed: int, video: Float32 | None, given: Sequence[Condition | None]) -> None:
        """Begin a queue as `Queue.start` does. `given`: the conditions that it asks for, None for the end."""
        queue = self._open(text, seed)
        self._given.extend(given)
        queue.start(_own(video))

    def row(self, text: Any, late: Sequence[tuple[int, Condition]], given: Sequence[Condition | None]) -> Float32:
        """The latents (B, C, t, ...) that leave with the next row. `text`: another one from here on, or None. `late`:
        frames in flight that get another condition."""
        assert self._queue is not None
        if text is not None:
            self._told.text = text
        for frame, condition in late:
            self._queue.rebind(frame, self._finished(condition))
        self._given.extend(given)
        leaving = [latent.latent for latent in self._queue.run()]
        batch, channels, *rest = self._queue.shape
        return np.stack(leaving, 2) if leaving else np.zeros((batch, channels, 0, *rest), np.float32)

    def checkpoint(self) -> Any:
        queue = None if self._queue is None else queue_state.snapshot(self._queue)
        return self._told.text, self._seed, queue

    def _restore(self, state: Any) -> None:
        self._queue = None
        if state is not None and state[2] is not None:
            text, seed, queue = state
            queue_state.restore(self._open(text, seed), queue)

    def _open(self, text: Any, seed: int) -> Queue:
        self._told, self._seed = Told(text), seed
        self._given.clear()
        self._queue = self._model.queue(self._told, lambda frame: self._finished(self._given.popleft()), seed)
        return self._queue

    def _finished(self, given: Condition | None) -> Any:
        """A condition as the denoiser takes it, of one as the session has it."""
        if given is None or not isinstance(self._model, StreamModel):
            return given
        return replace(given, values=self._model.taken(given.values))


class DecodeWorker(Worker):
    """A stream of `decode`."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self._model: LiveModel = make()
        self._decoder: LatentDecoder | None = None

    def load(self) -> None:
        getattr(self._model, "load_decoder", lambda: None)()

    def decode(self, latents_BCTHW: Float32, place: int) -> Picture:
        """The pictures (n, ...) of one of the latents that left together; n may be 0."""
        pictures = list(self._opened()(np.array(latents_BCTHW[:, :, place : place + 1])))
        return np.stack(pictures) if pictures else np.zeros(0, np.uint8)

    def checkpoint(self) -> Any:
        return None if self._decoder is None else self._decoder.state()

    def _restore(self, state: Any) -> None:
        self._decoder = None
        if state is not None:
            self._opened().restore(state)

    def _opened(self) -> LatentDecoder:
        if self._decoder is None:
            self._decoder = self._model.decoder()
        return self._decoder


def _own(array: Float32 | None) -> Float32 | None:
    """A copy that may be written: values of a cluster may not."""
    return None if array is None else np.array(array)
