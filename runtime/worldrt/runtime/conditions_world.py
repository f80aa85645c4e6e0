"""A world without a model: its pictures are what a model would be conditioned on. It is steered, recorded, replayed and
shown as any other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from worldrt.runtime.conditions._opened import Sources
from worldrt.runtime.conditions.base import ConditionSource
from worldrt.runtime.level_table import flow_euler
from worldrt.runtime.live.model import Array, Float32, Picture, Told
from worldrt.runtime.queue.conditions import Feed
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.scene.views import Layout, mosaic, mosaic_size
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.schedule.plan import Plan
from worldrt.runtime.sinks.base import VideoFormat


class ConditionsWorld:
    """A `LiveModel` and `StreamModel`. `source` opens the source of a stream by its seed; the first one is that of
    `seed`. Views lie as `layout` says, boxes over road marks, the brighter one seen."""

    def __init__(self, source: Callable[[int], ConditionSource], seed: int = 0, layout: Layout = "row") -> None:
        self._sources, self.layout = Sources(source, seed), layout
        first = self._sources.first
        self.controls: Sequence[str] = tuple(first.controls)
        self._facts = dict(first.facts())
        width, height = mosaic_size(len(first.views), *first.size_px, layout)
        self.video = VideoFormat(width, height, max(1, round(first.fps)))

    @property
    def schedule(self) -> Schedule:
        return Schedule(1, 1)

    @property
    def frames_at_once(self) -> int:
        return 1

    @property
    def latents_per_second(self) -> int:
        return self.video.fps

    def facts(self) -> Mapping[str, Any]:
        return {"family": "none", "layout": self.layout, "source": self._facts}

    def load(self) -> None:
        """There is nothing to load."""

    def check(self, prompt: str) -> None:
        """No prompt is asked for."""

    def encode(self, prompt: str) -> str:
        return prompt

    def condition(self, control: str) -> Mapping[str, Array]:
        return {}

    def queue(self, told: Told, feed: Feed, seed: int) -> Queue:
        def nothing(x: Float32, level: Float32, conditions: Mapping[str, Array]) -> Array:
            return np.zeros_like(x)

        return Queue(Plan(self.schedule), flow_euler(1), nothing, (1, 1, 1, 1), feed=feed, seed=seed)

    def first(self, told: Told, seed: int, base: Sequence[str]) -> Float32 | None:
        return None

    def stream(self, told: Told, seed: int) -> Conditions:
        return Conditions(self._sources.take(seed), self.layout)

    def taken(self, asked: Mapping[str, Array]) -> Mapping[str, Array]:
        return asked

    def decoder(self) -> Blank:
        return Blank((self.video.height, self.video.width, 3))


class Conditions:
    """A stream whose pictures are those of its source."""

    def __init__(self, source: ConditionSource, layout: Layout) -> None:
        self._source, self._layout = source, layout
        self._waiting: deque[Picture] = deque()  # filled by one stage and emptied by another, each at its end

    def condition(self, control: str) -> Mapping[str, Array]:
        images = self._source.next(control).images
        self._waiting.append(mosaic(np.maximum.reduce(list(images.values())), self._layout))
        return {}

    asked = condition

    def shown(self, picture: Picture) -> Picture:
        return self._waiting.popleft()

    def state(self) -> Any:
        return self._source.state(), tuple(self._waiting)

    def restore(self, state: Any) -> None:
        self._source.restore(state[0])
        self._waiting = deque(state[1])

    def close(self) -> None:
        self._source.close()


class Blank:
    """A decoder of nothing: a picture for each latent, which is not looked at."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._picture = np.zeros(shape, np.uint8)

    def __call__(self, latents_BCTHW: Float32) -> Iterator[Picture]:
        for _ in range(latents_BCTHW.shape[2]):
            yield self._picture

    def state(self) -> None:
        """There is none."""

    def restore(self, state: None) -> None:
        """There is none."""
