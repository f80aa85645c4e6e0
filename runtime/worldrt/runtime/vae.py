"""Streaming encode and decode by the four step graphs of a causal VAE.

Each `next` graph is bound twice, the output caches of one binding being the input caches of the other, so that caches
are never copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from worldrt.engine.bundle import Vae
from worldrt.engine.device import Buffer
from worldrt.engine.errors import InputError
from worldrt.engine.session import Call, Session
from worldrt.runtime.components import Opener
from worldrt.runtime.staging import again_with_room

Frame = np.ndarray[Any, np.dtype[np.uint8]]
Float32 = np.ndarray[Any, np.dtype[np.float32]]


class VaeCodec:
    """A loaded VAE. Buffers belong to one encode or decode, so several may be under way at once. `room` is asked to
    make some where memory is short, and says whether it could."""

    def __init__(self, opener: Opener, spec: Vae, room: Callable[[], bool] = lambda: False) -> None:
        self.spec = spec
        self._opener, self._room = opener, room
        self._graphs: dict[str, tuple[Session, dict[str, Buffer]]] = {}

    def load(self, way: str) -> None:
        """Load the graphs of a way (`encode`, `decode`) now, instead of when they are first used."""
        for name in (f"{way}_first", f"{way}_next"):
            self._graph(name)

    @property
    def loaded(self) -> bool:
        return bool(self._graphs)

    def unload(self) -> None:
        """Free the graphs and their weights; what is under way keeps its own."""
        self._graphs = {}

    def latent_frames(self, frames: int) -> int:
        """How many latents `frames` frames make. Raises `InputError` unless there are 4 k + 1 (temporal k + 1)."""
        if frames < 1 or (frames - 1) % self.spec.temporal:
            raise InputError(f"number of frames: expected 1 more than a multiple of {self.spec.temporal}, got {frames}")
        return 1 + (frames - 1) // self.spec.temporal

    def encode(self, frames_THWC: Frame) -> Float32:
        """Normalised latents (1, C, t, H/8, W/8) of uint8 RGB frames."""
        count = self.latent_frames(len(frames_THWC))
        latents = []
        for i, call in enumerate(self._steps("encode", count, frames_THWC.shape[1:3])):
            start = 0 if i == 0 else 1 + (i - 1) * self.spec.temporal
            stop = 1 + i * self.spec.temporal
            pixels = frames_THWC[start:stop].transpose(3, 0, 1, 2)[None].astype(np.float32)
            self._upload(call["video"], pixels / np.float32(127.5) - np.float32(1))
            call.run()
            latents.append(self._opener.device.download(call["latent"]))
        return np.concatenate(latents, axis=2)

    def decode(self, latents_BCTHW: Float32) -> Iterator[Frame]:
        """uint8 RGB frames (H, W, 3) of normalised latents (1, C, t, h, w), each as soon as its latent is decoded.

        Where the graphs give `nv12` or `yuv420p`, frames are planes (3 H / 2, W). A frame belongs to the caller.
        """
        yield from self.decoder(*latents_BCTHW.shape[2:])(latents_BCTHW)

    def decoder(self, count: int, rows: int, columns: int) -> Callable[[Float32], Iterator[Frame]]:
        """A decode of `count` latents that are not all there yet: a function that takes the next ones, in order, and
        yields their frames as `decode` does. What is fed in parts gives the same frames as the whole."""
        spatial = self.spec.spatial
        calls = self._steps("decode", count, (rows * spatial, columns * spatial))

        def feed(latents_BCTHW: Float32) -> Iterator[Frame]:
            for i in range(latents_BCTHW.shape[2]):
                call = next(calls)
                self._upload(call["latent"], latents_BCTHW[:, :, i : i + 1])
                call.run()
                yield from self._opener.device.download(call["frames"])[0]

        return feed

    def _upload(self, target: Buffer, array: Float32) -> None:
        self._opener.device.upload(target, np.ascontiguousarray(array))

    def _steps(self, way: str, count: int, size_px: tuple[int, ...]) -> Iterator[Call]:
        """The calls for `count` latents: the first one, then the two bindings of `next` in turn."""
        spatial = self.spec.spatial
        axes = {"batch": 1, "rows": size_px[0] // spatial, "columns": size_px[1] // spatial}
        first, *following = again_with_room(lambda: self._bound(way, count, axes), self._room)
        yield first
        for i in range(count - 1):
            yield following[i % 2]

    def _bound(self, way: str, count: int, axes: Mapping[str, int]) -> list[Call]:
        """All bindings, before any is run, so that memory which is short is found while room can be made."""
        first = self._bind(f"{way}_first", axes, {})
        if count == 1:
            return [first]
        there = self._bind(f"{way}_next", axes, _as_inputs(first))
        return [first, there, self._bind(f"{way}_next", axes, _as_inputs(there) | _as_outputs(first))]

    def _bind(self, name: str, axes: Mapping[str, int], given: Mapping[str, Buffer]) -> Call:
        session, weights = self._graph(name)
        return session.bind(axes, {**weights, **given})

    def _graph(self, name: str) -> tuple[Session, dict[str, Buffer]]:
        if name not in self._graphs:
            self._graphs[name] = self._opener.graph(self.spec, name)
        return self._graphs[name]


def _as_inputs(call: Call) -> dict[str, Buffer]:
    """The output caches of a call under the names of input caches."""
    return {f"cache_in_{name.removeprefix('cache_')}": buffer for name, buffer in _as_outputs(call).items()}


def _as_outputs(call: Call) -> dict[str, Buffer]:
    return {
        name: buffer
        for name, buffer in call.buffers.items()
        if name.startswith("cache_") and not name.startswith("cache_in_")
    }
