"""The world of a bundle that draws several views from layouts: a source drives, and each frame gets what it shows."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.bundle import Layout
from worldrt.engine.errors import InputError
from worldrt.runtime.conditions._elsewhere import Elsewhere
from worldrt.runtime.conditions._opened import Sources
from worldrt.runtime.conditions.base import ConditionFrame, ConditionSource
from worldrt.runtime.joint_text import Encoded
from worldrt.runtime.live.layout import LayoutEncoder, camera_numbers
from worldrt.runtime.live.model import Array, Float32, Picture, Told
from worldrt.runtime.live.world import World, WorldDecoder
from worldrt.runtime.models import Models
from worldrt.runtime.scene.views import Layout as Arrangement
from worldrt.runtime.scene.views import mosaic, mosaic_size, overlay
from worldrt.runtime.sinks.base import VideoFormat

FRAME_BOUND = {"text", "pooled", "camera", "residual"}


@dataclass(frozen=True)
class Showing:
    """How views become one picture, and whether their layout is laid over them."""

    arrangement: Arrangement = "row"
    overlay: bool = False


class LayoutWorld(World):
    """A `LiveModel` and `StreamModel` of opened bundles. `source` opens the source of conditions for a seed; `size` is
    that of each view. Raises `InputError` for what cannot be used."""

    def __init__(
        self,
        models: Models,
        source: Callable[[int], ConditionSource],
        *,
        seed: int = 0,
        showing: Showing | None = None,
        **options: Any,
    ) -> None:
        self.showing = showing or Showing()
        self._empty: dict[tuple[int, ...], Array] = {}
        super().__init__(models, **options)
        if self.schedule.commit_level is not None:
            raise InputError("commit level: the conditions of this world go on with each frame and cannot be replaced")
        self._view_px = self.video.width, self.video.height
        sizes = {size for table in self.spec.sizes.values() for size in table.values()}
        if self._view_px not in sizes:
            known = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            raise InputError(f"size: this bundle has views of {known}; export one of another size with --model_config")
        if self.video.pixel_format != "rgb24":
            raise InputError(f"frames of several views: expected rgb24, got {self.video.pixel_format}; export it so")
        self._sources = Sources(source, seed)
        first = self._sources.first
        if len(first.views) != self.layout.views:
            self._sources.close()
            raise InputError(
                f"conditions: expected {self.layout.views} cameras as the model has views, got {len(first.views)}"
            )
        self._told_by = Elsewhere.of(first)
        self._symbols, self._fps = self._told_by.controls, first.fps
        width, height = mosaic_size(self.layout.views, *self._view_px, self.showing.arrangement)
        self.video = VideoFormat(width, height, max(1, round(self._fps)))
        self._layout_encoder: LayoutEncoder | None = None

    @property
    def layout(self) -> Layout:
        layout = self.spec.layout
        assert layout is not None
        return layout

    @property
    def latents_per_second(self) -> int:
        return self.video.fps

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a latent frame, (1, C, V, rows, columns)."""
        width, height = (side // self._vae.spatial for side in self._view_px)
        return 1, self._vae.channels, self.layout.views, height, width

    def load_denoiser(self) -> None:
        super().load_denoiser()
        self.layout_encoder.nothing()

    def facts(self) -> Mapping[str, Any]:
        showing = {"arrangement": self.showing.arrangement, "overlay": self.showing.overlay}
        return dict(super().facts()) | {"source": self._told_by.facts(), "showing": showing}

    def check(self, prompt: str) -> None:
        """Any prompt will do: what is too long is cut."""

    def encode(self, prompt: str) -> str:
        """What is said of the world besides what its source says of each view."""
        return " ".join(prompt.split())

    def condition(self, control: str) -> Mapping[str, Array]:
        raise InputError("this world has conditions of its own for each stream")

    def stream(self, told: Told, seed: int) -> LayoutStream:
        return LayoutStream(self, told, self._sources.take(seed))

    def taken(self, asked: Asked) -> Mapping[str, Array]:
        encoded = [self.encoded(text) for text in asked.texts]
        return {
            "text": np.stack([one.text for one in encoded]),
            "pooled": np.stack([one.pooled for one in encoded]),
            "camera": camera_numbers(asked.frame),
            "residual": self.residual(asked.frame),
        }

    @property
    def source(self) -> Elsewhere:
        """What its sources say of themselves."""
        return self._told_by

    def decoder(self) -> WorldDecoder:
        return WorldDecoder(self._models.vae(self._task).pictures(self.layout.views, *self.shape[3:]), self._alone)

    @property
    def layout_encoder(self) -> LayoutEncoder:
        if self._layout_encoder is None:
            model = self._models.denoiser(self._task)
            self._layout_encoder = LayoutEncoder(model, self.layout, *self._view_px)
        return self._layout_encoder

    def encoded(self, prompt: str) -> Encoded:
        """The rows of a prompt."""
        with self._encoding, self._alone:
            return self._models.texts(self._task).encode(prompt)

    def residual(self, frame: ConditionFrame) -> Float32:
        """What the network takes of a frame's layout."""
        with self._alone:
            return self.layout_encoder.residual(frame)

    def _given(self) -> set[str]:
        return FRAME_BOUND

    def _seen(self, branch: str, told: Told, conditions: Mapping[str, Array]) -> tuple[Array, Mapping[str, Array]]:
        if branch == "cond":
            return conditions["text"], conditions
        nothing = self.encoded("")
        whole = conditions["text"].shape
        without: dict[str, Array] = {"pooled": nothing.pooled, "residual": self.layout_encoder.nothing()}
        return self._unconditional(whole, nothing), {**conditions, **without}

    def _unconditional(self, shape: tuple[int, ...], nothing: Encoded) -> Array:
        """The empty prompt for every frame and view, the same array each time."""
        kept = self._empty.get(shape)
        if kept is None:
            kept = self._empty[shape] = np.ascontiguousarray(np.broadcast_to(nothing.text, shape))
        return kept


@dataclass(frozen=True, eq=False)
class Asked:
    """What a frame is to show: conditions as a source has them, and the prompt of each view."""

    frame: ConditionFrame
    texts: tuple[str, ...]


class LayoutStream:
    """The conditions of one stream: a source that goes on by one frame for each, and prompts that are encoded beside
    the denoising: a new one is seen from the frame after that which it was told with."""

    def __init__(self, world: LayoutWorld, told: Told, source: ConditionSource) -> None:
        self._world, self._told, self._source = world, told, source
        self._interval = world.layout.text_interval
        self._frame = 0
        self._texts: tuple[str, ...] = ()
        self._coming: tuple[str, ...] = ()
        self._job: Future[Any] | None = None
        self._layouts: deque[Mapping[str, Picture]] = deque()  # of frames that are not shown yet
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._lock = threading.Lock()

    def condition(self, control: str) -> Mapping[str, Array]:
        self._settle()
        known = self._coming
        asked = self.asked(control)
        if self._coming is not known:  # encoded aside
            self._job = self._pool.submit(lambda texts: [self._world.encoded(text) for text in texts], self._coming)
        return self._world.taken(asked)

    def asked(self, control: str) -> Asked:
        frame = self._source.next(control)
        if self._world.showing.overlay:
            with self._lock:
                self._layouts.append(dict(frame.images))
        return Asked(frame, self._prompts(frame))

    def shown(self, picture: Picture) -> Picture:
        if self._world.showing.overlay:
            with self._lock:
                images = self._layouts.popleft()
            picture = overlay(picture, images)
        return mosaic(picture, self._world.showing.arrangement)

    def state(self) -> Any:
        self._settle()
        return self._source.state(), self._frame, self._texts, self._coming, tuple(self._layouts)

    def restore(self, state: Any) -> None:
        source, self._frame, self._texts, self._coming, layouts = state
        self._source.restore(source)
        self._layouts = deque(layouts)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._source.close()

    def _prompts(self, frame: ConditionFrame) -> tuple[str, ...]:
        """The prompt of each view for this frame; every few frames the newest ones are taken, from the next frame
        on."""
        self._texts = self._coming or self._texts
        if self._frame % self._interval == 0:
            self._coming = tuple(f"{text} {self._told.text}".strip() for text in frame.text)
            self._texts = self._texts or self._coming
        self._frame += 1
        return self._texts

    def _settle(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.result()
