"""Streaming encode and decode by the four step graphs of a causal VAE.

Each `next` graph is bound twice, the output caches of one binding being the input caches of the other, so that caches
are never copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np

from worldrt.engine.bundle import Vae
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import InputError
from worldrt.engine.session import Call, Session
from worldrt.runtime.components import Opener
from worldrt.runtime.staging import again_with_room
from worldrt.runtime.vae_pictures import PictureDecoder

Frame = np.ndarray[Any, np.dtype[np.uint8]]
Float32 = np.ndarray[Any, np.dtype[np.float32]]


class VaeCodec:
    """A loaded VAE. Buffers belong to one encode or decode, so several may be under way at once. `room` is asked to
    make some where memory is short, and says whether it could."""

    def __init__(self, opener: Opener, spec: Vae, room: Callable[[], bool] = lambda: False) -> None:
        self.spec = spec
        self._opener, self._room = opener, room
        self._graphs: dict[str, tuple[Session, dict[str, Buffer]]] = {}
        self._decoders: WeakSet[Decoder | PictureDecoder] = WeakSet()

    def load(self, way: str) -> None:
        """Load the graphs of a way (`encode`, `decode`) now, instead of when they are first used."""
        steps = (f"{way}_first", f"{way}_next")
        for name in (way,) if way in self.spec.graphs else steps:
            self._graph(name)

    @property
    def loaded(self) -> bool:
        return bool(self._graphs)

    def unload(self) -> None:
        """Free the graphs and their weights. An encode under way keeps its own; a decode comes back when it goes on."""
        for decoder in self._decoders:
            decoder.park()
        self._graphs = {}

    def latent_frames(self, frames: int) -> int:
        """How many latents `frames` frames make. Raises `InputError` unless there are 4 k + 1 (temporal k + 1)."""
        if frames < 1 or (frames - 1) % self.spec.temporal:
            raise InputError(f"number of frames: expected 1 more than a multiple of {self.spec.temporal}, got {frames}")
        return 1 + (frames - 1) // self.spec.temporal

    def encode(self, frames_THWC: Frame) -> Float32:
        """Normalised latents (1, C, t, H/8, W/8) of uint8 RGB frames."""
        self.latent_frames(len(frames_THWC))
        first = self._first_encode(len(frames_THWC))
        more = self.spec.chunk("encode_next").frames
        starts = [0, *range(self.spec.chunk(first).frames, len(frames_THWC), more)]
        calls = self._steps(first, len(starts), frames_THWC.shape[1:3])
        latents = []
        for start, stop, call in zip(starts, [*starts[1:], len(frames_THWC)], calls, strict=True):
            pixels = frames_THWC[start:stop].transpose(3, 0, 1, 2)[None].astype(np.float32)
            self.upload(call["video"], pixels / np.float32(127.5) - np.float32(1))
            call.run()
            latents.append(self.device.download(call["latent"]))
        return np.concatenate(latents, axis=2)

    def encodable(self, frames: int) -> int:
        """The least number of frames, but not less than `frames`, that can be encoded."""
        more = self.spec.chunk("encode_next").frames
        return min(first + max(0, -(-(frames - first) // more)) * more for first in self._first_chunks().values())

    def _first_chunks(self) -> dict[str, int]:
        """Frames of the graphs that an encode may begin with."""
        return {name: self.spec.chunk(name).frames for name in self.spec.graphs if name.startswith("encode_first")}

    def _first_encode(self, frames: int) -> str:
        """The graph that encodes the first frames of so many: the largest one after which whole chunks are left."""
        more, sizes = self.spec.chunk("encode_next").frames, self._first_chunks()
        fitting = [name for name, size in sizes.items() if size <= frames and (frames - size) % more == 0]
        if not fitting:
            raise InputError(
                f"{frames} frames: this VAE encodes one of {sorted(sizes.values())} first, then {more} at a time"
            )
        return max(fitting, key=sizes.__getitem__)

    def decode(self, latents_BCTHW: Float32) -> Iterator[Frame]:
        """uint8 RGB frames (H, W, 3) of normalised latents (1, C, t, h, w), each as soon as its latent is decoded.

        Where the graphs give `nv12` or `yuv420p`, frames are planes (3 H / 2, W). A frame belongs to the caller.
        """
        yield from self.decoder(*latents_BCTHW.shape[2:])(latents_BCTHW)

    def decoder(self, count: int, rows: int, columns: int) -> Decoder:
        """A decode of `count` latents that are not all there yet."""
        decoder = Decoder(self, count, {"batch": 1, "rows": rows, "columns": columns})
        self._decoders.add(decoder)
        return decoder

    def pictures(self, views: int, rows: int, columns: int) -> PictureDecoder:
        """A decode of frames of several views, of a VAE that knows no time."""
        decoder = PictureDecoder(self, views, rows, columns)
        self._decoders.add(decoder)
        return decoder

    @property
    def opener(self) -> Opener:
        """What opens its graphs."""
        return self._opener

    @property
    def device(self) -> Device:
        return self._opener.device

    def upload(self, target: Buffer, array: np.ndarray[Any, Any]) -> None:
        """Write a buffer of one of the calls."""
        self.device.upload(target, np.ascontiguousarray(array))

    def _steps(self, first: str, count: int, size_px: tuple[int, ...]) -> Iterator[Call]:
        """`count` calls: that of the graph `first`, then the two bindings of `next` in turn."""
        spatial = self.spec.spatial
        axes = {"batch": 1, "rows": size_px[0] // spatial, "columns": size_px[1] // spatial}
        start, *following = self.bound(first, count, axes)
        yield start
        for i in range(count - 1):
            yield following[i % 2]

    def bound(self, name: str, count: int, axes: Mapping[str, int], *, first: bool = True) -> list[Call]:
        """The bindings for `count` calls that begin with the graph `name`, all before any is run, so that memory which
        is short is found while room can be made. Without `first`, the two of `next` alone."""
        following = f"{name.partition('_')[0]}_next"

        def bind() -> list[Call]:
            if not first:
                there = self._bind(following, axes, {})
                return [there, self._bind(following, axes, _as_inputs(there) | _of_inputs(there))]
            start = self._bind(name, axes, {})
            if count == 1:
                return [start]
            there = self._bind(following, axes, _as_inputs(start))
            return [start, there, self._bind(following, axes, _as_inputs(there) | _as_outputs(start))]

        return again_with_room(bind, self._room)

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


def _of_inputs(call: Call) -> dict[str, Buffer]:
    """The input caches of a call under the names of output caches."""
    mark = "cache_in_"
    return {f"cache_{n.removeprefix(mark)}": buffer for n, buffer in call.buffers.items() if n.startswith(mark)}


class Decoder:
    """A decode under way: a call with the next latents yields their frames as `VaeCodec.decode` does. Fed in parts, it
    gives the same frames as fed at once. Between two parts its graphs and buffers may go to make room.

    Where graphs take several latents at a time, latents wait until there are enough.
    """

    def __init__(self, codec: VaeCodec, count: int, axes: Mapping[str, int]) -> None:
        self._codec, self._axes, self._done = codec, axes, 0
        self._first, self._more = (codec.spec.chunk(f"decode_{step}").latents for step in ("first", "next"))
        self._count = 1 + max(0, -(-(count - self._first) // self._more))  # calls
        self._waiting: list[Float32] = []
        self._calls: list[Call] = []  # those to come, in turn
        self._last: Call | None = None
        self._parked: dict[str, np.ndarray[Any, Any]] = {}

    def __call__(self, latents_BCTHW: Float32) -> Iterator[Frame]:
        """Frames of the next latents (1, C, t, h, w); all of them are to be taken before the next call."""
        for i in range(latents_BCTHW.shape[2]):
            self._waiting.append(latents_BCTHW[:, :, i : i + 1])
            if len(self._waiting) < (self._more if self._done else self._first):
                continue
            call = self._next()
            self._codec.upload(call["latent"], np.concatenate(self._waiting, axis=2))
            call.run()
            self._last, self._done, self._waiting = call, self._done + 1, []
            yield from self._codec.device.download(call["frames"])[0]

    def state(self) -> DecoderState:
        """What the next frames depend on, copied to the host; another decoder goes on from it with `restore`."""
        return DecoderState(self._done, tuple(np.array(latent) for latent in self._waiting), self._caches())

    def restore(self, state: DecoderState) -> None:
        """Go on from a state that a decoder of the same size gave."""
        self._calls, self._last = [], None
        self._done, self._waiting, self._parked = state.done, list(state.waiting), dict(state.caches)

    def _next(self) -> Call:
        if not self._calls:
            self._calls = self._codec.bound("decode_first", self._count, self._axes, first=self._done == 0)
            for name, cache in self._parked.items():
                self._codec.upload(self._calls[0][name], cache)
            self._parked = {}
        call, *others = self._calls
        self._calls = others if self._done == 0 else [*others, call]
        return call

    def park(self) -> None:
        """Let graphs and buffers go; the caches wait on the host."""
        if self._done < self._count:
            self._parked = self._caches()
        self._calls, self._last = [], None

    def _caches(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the caches that the next call takes."""
        if self._last is None:
            return dict(self._parked)
        download = self._codec.device.download
        return {name: download(cache) for name, cache in _as_inputs(self._last).items()}


@dataclass(frozen=True, eq=False)
class DecoderState:
    """A decode between two calls: how many there were, latents that wait, and the caches by name."""

    done: int
    waiting: tuple[Float32, ...]
    caches: Mapping[str, np.ndarray[Any, Any]]
