"""The chunks of a film, made one after another, and their frames as one stream.

Handed over as `latents`: the last latents of a chunk are the clean latents of the next, bit for bit, and the decoder
goes on over the border as within a chunk, so that there is no seam. Chunks do not depend on frames then, and the next
one is sampled while one is decoded.
Handed over as `frames`: the last frames of a chunk, as they were decoded, are encoded again, and each chunk is decoded
by itself, as in the official code, but without a file between.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from worldrt.runtime.keep import Keep
from worldrt.runtime.long import of_chunk
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.ahead import Ahead, Until
from worldrt.runtime.pipelines.base import Float32, Frame, Texts, encode_all, sample_clip
from worldrt.runtime.request import Request, Settings
from worldrt.runtime.vae import VaeCodec

Clean = Callable[[], Float32]


@dataclass(frozen=True)
class Chunks:
    """`given` are the frames that the film starts with, `edit` those that are edited, both of the size of the video.
    `negative_text` gives the negative prompt of a request; `texts` are those of chunks to come, encoded."""

    models: Models
    task: str
    request: Request
    settings: Settings
    given: Frame
    edit: Frame | None
    negative_text: Callable[[Request], str]
    observer: Observer
    keep: Keep
    texts: dict[int, Texts] = field(default_factory=dict)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the film as they are decoded."""
        stage, total = f"{self.task}: decode", self.settings.total_frames
        with closing(self._by_frames() if self.request.hand_over == "frames" else self._by_latents()) as frames:
            for done in range(1, total + 1):
                frame = next(frames)
                yield frame
                self.observer.progress(stage, done, total)

    def _by_latents(self) -> Generator[Frame]:
        if self.models.execution.offload:
            yield from self._decoded(iter(list(self._parts())))  # each model is loaded once: sampling needs no frames
        elif self.settings.num_chunks > 1 and self._both_at_once():
            yield from self._decoded_beside()
        else:
            yield from self._decoded(self._parts())

    def _both_at_once(self) -> bool:
        """Whether decoding goes on beside sampling: on a GPU both take turns on its stream."""
        return self.models.opener(self.task).device.name == "cpu" and self.models.fits(self.task, "vae")

    def _decoded_beside(self) -> Iterator[Frame]:
        """Each chunk is decoded while the next one is sampled."""
        stopped = threading.Event()
        beside = replace(self, observer=Until(self.observer, stopped))
        with Ahead(beside._parts(), stopped) as parts:
            yield from self._decoded(parts)

    def _decoded(self, parts: Iterator[Float32]) -> Iterator[Frame]:
        feed = None
        for latents in parts:
            if feed is None:
                self._begin_decode()
            vae = self._vae("decode")
            feed = feed or vae.decoder(vae.latent_frames(self.settings.total_frames), *latents.shape[3:])
            yield from self._timed(feed(latents))

    def _parts(self) -> Iterator[Float32]:
        """The latents of the film: all of the first chunk, and what is new in each later one."""
        vae, settings = self.models.vae(self.task), self.settings
        clean, known = self._encoded(self.given), 0
        for i in range(settings.num_chunks):
            latents = self._latents(i, clean)
            yield latents[:, :, known:]
            if i + 1 < settings.num_chunks:
                known = vae.latent_frames(settings.num_overlap_frames)
                clean = _ready(latents[:, :, -known:])

    def _by_frames(self) -> Generator[Frame]:
        settings, given = self.settings, self.given
        for i in range(settings.num_chunks):
            latents = self._latents(i, self._encoded(given))
            tail: deque[Frame] = deque(maxlen=settings.num_overlap_frames)
            if i == 0:
                self._begin_decode()
            for j, frame in enumerate(self._timed(self._vae("decode").decode(latents))):
                tail.append(frame)
                if i == 0 or j >= settings.num_overlap_frames:
                    yield frame
            if i + 1 < settings.num_chunks:
                given = np.stack(tail)

    def _vae(self, way: str) -> VaeCodec:
        """Loaded, and with room for what it does."""
        with self.observer.stage(f"{self.task}: load"):
            vae = self.models.vae(self.task)
            self.models.with_room(self.task, "vae", lambda: vae.load(way))
        return vae

    def _encoded(self, frames: Frame) -> Clean:
        """What encodes frames, when they are needed."""

        def encode() -> Float32:
            vae = self._vae("encode")
            with self.observer.stage(f"{self.task}: encode"):
                return vae.encode(frames)

        return encode

    def _begin_decode(self) -> None:
        self.observer.progress(f"{self.task}: decode", 0, self.settings.total_frames)

    def _timed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Frames as they are decoded, which is timed, and not what is done with them."""
        while True:
            with self.observer.stage(f"{self.task}: decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _latents(self, index: int, clean: Clean) -> Float32:
        """All latents of a chunk: kept ones, or sampled and kept."""
        name, count = f"chunk-{index:03}", self.settings.num_chunks
        if count == 1:
            return self._sample(index, clean)
        if index == 0:
            self.observer.progress(f"{self.task}: chunks", 0, count)
        latents = self.keep.load(name)
        if latents is None:
            latents = self._sample(index, clean)
            self.keep.save(name, latents)
        self.observer.progress(f"{self.task}: chunks", index + 1, count)
        return latents

    def _sample(self, index: int, clean: Clean) -> Float32:
        texts, seed = self._texts(index), of_chunk(self.request, index).seed
        conditions = known_frames(clean(), self.models.vae(self.task).latent_frames(self.settings.num_frames))
        start = None if self.edit is None else self._encoded(self.edit)()
        return sample_clip(self.models, self.task, self.settings, seed, texts, conditions, self.observer, start)

    def _texts(self, index: int) -> Texts:
        """Those of a chunk. The first time those of all later chunks are encoded too, and the encoder loads once."""
        if index not in self.texts:
            coming = range(index, self.settings.num_chunks)
            requests = [of_chunk(self.request, i) for i in coming]
            pairs = [(request.prompt, self.negative_text(request)) for request in requests]
            self.texts.update(zip(coming, encode_all(self.models, self.task, pairs, self.observer), strict=True))
        return self.texts.pop(index)


def _ready(latents: Float32) -> Clean:
    return lambda: latents


def known_frames(latents: Float32, frames: int) -> dict[str, Float32]:
    """Conditions of a clip whose first latents are given: `clean` (1, C, T, h, w), zero after them, `mask` (1, T)."""
    _, channels, known, height, width = latents.shape
    clean = np.zeros((1, channels, frames, height, width), np.float32)
    mask = np.zeros((1, frames), np.float32)
    clean[:, :, :known], mask[:, :known] = latents, 1
    return {"clean": clean, "mask": mask}
