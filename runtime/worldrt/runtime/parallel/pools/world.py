"""A world whose models are in the workers of a cluster: the denoiser in one pool, the decoder in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from worldrt.runtime.live.model import Array, Float32, LatentDecoder, LiveModel, Picture, Told
from worldrt.runtime.live.streams import Stream, StreamModel
from worldrt.runtime.parallel.pools.base import Cluster, Make
from worldrt.runtime.parallel.pools.queue import FarLatent, FarQueue
from worldrt.runtime.parallel.pools.stage import Stage
from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.sinks.base import VideoFormat


class PooledWorld:
    """A `LiveModel` for one stream at a time: a new queue ends the one before.

    `model` says what the world is, and loads nothing. `denoise` makes a `DenoiseWorker`, and `decode` the workers of
    the parts of the decoder, each of which takes what the one before gives; `groups` are for the first, where that is
    more than one worker. `window` is as of `FarQueue`. A checkpoint is taken every `every` rows, and latents; with
    `spare` a loaded worker waits in each pool.
    """

    def __init__(
        self,
        model: LiveModel,
        cluster: Cluster,
        denoise: Make,
        decode: Sequence[Make],
        *,
        groups: Cluster | None = None,
        window: int = 1,
        every: int = 8,
        spare: bool = False,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        def stage(where: Cluster, make: Make, name: str) -> Stage:
            return Stage(where, make, name, every=every, spare=spare, told=told)

        self._model, self._window = model, window
        self.denoise = stage(groups or cluster, denoise, "denoise")
        self.decode = [stage(cluster, make, f"decode {i}" if i else "decode") for i, make in enumerate(decode)]

    @property
    def video(self) -> VideoFormat:
        return self._model.video

    @property
    def controls(self) -> Sequence[str]:
        return self._model.controls

    @property
    def schedule(self) -> Schedule:
        return self._model.schedule

    @property
    def frames_at_once(self) -> int:
        return self._model.frames_at_once

    def load(self) -> None:
        """Wait until all workers are there and loaded. Raises what loading raised."""
        for stage in (self.denoise, *self.decode):
            stage.ask("load")

    def facts(self) -> Mapping[str, Any]:
        return self._model.facts()

    def check(self, prompt: str) -> None:
        self._model.check(prompt)

    def condition(self, control: str) -> Mapping[str, Array]:
        return self._model.condition(control)

    def encode(self, prompt: str) -> Any:
        return self.denoise.ask("encode", prompt)

    def first(self, told: Told, seed: int, base: Sequence[str]) -> Float32 | None:
        made: Float32 | None = self.denoise.ask("first", told.text, seed, tuple(base))
        return made

    def queue(self, told: Told, feed: Feed, seed: int) -> Queue:
        return FarQueue(self.denoise, self.schedule, told, feed, seed, window=self._window)

    def decoder(self) -> LatentDecoder:
        return FarDecoder(self.denoise, self.decode)

    def end(self) -> None:
        """Let the workers go."""
        for stage in (self.denoise, *self.decode):
            stage.end()


class PooledStreams(PooledWorld):
    """A `StreamModel` in pools: streams go on here, and what a model makes of their conditions is made where it is."""

    @property
    def latents_per_second(self) -> int:
        return cast(StreamModel, self._model).latents_per_second

    def stream(self, told: Told, seed: int) -> Stream:
        return FarStream(cast(StreamModel, self._model).stream(told, seed))

    def taken(self, asked: Any) -> Mapping[str, Array]:
        return cast(StreamModel, self._model).taken(asked)


def pooled_world(model: LiveModel, *args: Any, **options: Any) -> PooledWorld:
    """A `PooledWorld` of any model; arguments are its own."""
    kind = PooledStreams if isinstance(model, StreamModel) else PooledWorld
    return kind(model, *args, **options)


class FarStream:
    """A stream whose conditions are sent as they are asked for."""

    def __init__(self, stream: Stream) -> None:
        self.asked = self.condition = stream.asked
        self.shown, self.state, self.restore, self.close = stream.shown, stream.state, stream.restore, stream.close


class FarDecoder:
    """Decodes latents that lie in the cluster, which do not come here on their way."""

    def __init__(self, denoise: Stage, stages: Sequence[Stage]) -> None:
        self._denoise, self._stages = denoise, stages
        for stage in stages:
            stage.begin()

    def __call__(self, latents_BCTHW: Float32) -> Iterator[Picture]:
        latent = cast(FarLatent, latents_BCTHW)
        result = self._stages[0].submit("decode", latent.row, latent.place)
        for stage in self._stages[1:]:
            result = stage.submit("decode", result)
        yield from np.array(result.get())  # a copy: what lies in the cluster cannot be written, and is let go

    def state(self) -> list[Any]:
        """Of all workers: what lies in the cluster of a stream, its queue's latents too, is kept here."""
        return [stage.state() for stage in (self._denoise, *self._stages)]

    def restore(self, state: list[Any]) -> None:
        for stage, part in zip((self._denoise, *self._stages), state, strict=True):
            stage.begin(part)
