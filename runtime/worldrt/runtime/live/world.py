"""The world of a bundle: its denoiser in a queue, its VAE one latent after another, its texts and controls."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

from worldrt.engine.bundle import Denoiser, Vae
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import InputError
from worldrt.runtime.live import offline
from worldrt.runtime.live.device import DeviceQueues
from worldrt.runtime.live.model import Array, Float32, LatentDecoder, Picture, Told
from worldrt.runtime.live.recipe import Recipe, clip_recipe, recipe
from worldrt.runtime.live.tables import control_table
from worldrt.runtime.live.window import Seen, WindowDenoiser
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.checks import check_shared
from worldrt.runtime.parallel.window import BASE, STREAM, SharedWindow
from worldrt.runtime.queue.conditions import Condition, Feed
from worldrt.runtime.queue.evaluation import Asked, Jointly
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.schedule.law import Schedule
from worldrt.runtime.sinks.base import VideoFormat
from worldrt.runtime.vae import VaeCodec

TASK = "world"
ENDLESS = 2**62
BRANCHES = ("cond", "uncond")
"""With the prompt, and without it."""


class World:
    """A `LiveModel` of opened bundles; graphs are loaded by `load`, or when they are first used.

    `size`: (width, height) in pixels. `schedule` in place of the model's own. `guidance` as the model counts it.
    `commit_level`: frames take a new control while they are at this level or above, and not only when they enter.
    `init`: uint8 RGB frames (n, height, width, 3) that the world goes on from; without them the denoiser of `base`, or
    the world's own, makes a clip. Raises `InputError` for what cannot be used, or not by so many ranks.
    """

    def __init__(
        self,
        models: Models,
        *,
        task: str = TASK,
        size: tuple[int, int] | None = None,
        schedule: Schedule | None = None,
        guidance: float | None = None,
        commit_level: int | None = None,
        init: Picture | None = None,
        base: Models | None = None,
        base_steps: int | None = None,
    ) -> None:
        self._models, self._task, self._base, self._init = models, task, base, init
        self.bundle = models.opener(task).bundle
        self.spec: Denoiser = self.bundle.manifest.denoisers[task]
        self._vae: Vae = models.vae(task).spec
        self.recipe = recipe(self.spec, schedule=schedule, guidance=guidance, commit_level=commit_level)
        ranks = models.execution.ranks
        if ranks is not None:
            check_shared(self.spec, ranks, self.schedule.slots, guided=len(self.schedule.terms) > 1)
        self._base_steps, self._guidance = base_steps, guidance
        self.video = self._format(size)
        self._symbols, self._table = control_table(self.bundle, self.spec)
        on_host = models.opener(task).device.name == "cpu"
        self._alone: AbstractContextManager[Any] = nullcontext() if on_host else threading.Lock()
        self._windows: dict[str, WindowDenoiser] = {}
        self._device_queues: dict[str, DeviceQueues] = {}
        self._first: tuple[Any, Float32 | None] | None = None
        self._encoding = threading.Lock()

    @property
    def controls(self) -> Sequence[str]:
        return self._symbols

    @property
    def schedule(self) -> Schedule:
        return self.recipe.schedule

    @property
    def frames_at_once(self) -> int:
        step = self._vae.chunk("decode_next")
        return self.schedule.group * step.frames // step.latents

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a latent frame, (1, C, rows, columns)."""
        scale = self._vae.spatial
        return 1, self._vae.channels, self.video.height // scale, self.video.width // scale

    @property
    def vae(self) -> VaeCodec:
        """What encodes and decodes its pictures."""
        return self._models.vae(self._task)

    def generate(
        self, prompt: str, length_s: int, control_signal: str | Sequence[str] | None = None, **options: Any
    ) -> Iterator[Picture]:
        """`worldrt.runtime.live.offline.generate` of this world."""
        return offline.generate(self, prompt, length_s, control_signal, **options)

    def load(self) -> None:
        """Load all graphs now. Raises what loading raises."""
        self.load_denoiser()
        self.load_decoder()

    def load_denoiser(self) -> None:
        """Load what rows need."""
        self._window(self._models)

    def load_decoder(self) -> None:
        """Load what decoding needs."""
        self._models.vae(self._task).load("decode")

    def facts(self) -> Mapping[str, Any]:
        manifest = self.bundle.manifest
        init = None if self._init is None else hashlib.sha256(self._init.tobytes()).hexdigest()
        return {
            "family": manifest.family,
            "variant": manifest.variant,
            "precision": self.spec.precision,
            "weights": {name: file.header_sha256 for name, file in sorted(manifest.weights.files.items())},
            "size": [self.video.width, self.video.height],
            "schedule": asdict(self.recipe.schedule),
            "base": None if self._base is None else self._base.opener(self._task).bundle.manifest.variant,
            "init": init,
        }

    def check(self, prompt: str) -> None:
        self._models.text(self._task).tokens(prompt)

    def encode(self, prompt: str) -> Any:
        """The rows of the prompt, and those of no prompt."""
        with self._encoding, self._alone:
            encoder = self._models.text(self._task)
            nothing = encoder.encode("") if encoder.spec.unconditional == "empty" else encoder.nothing()
            return encoder.encode(prompt), nothing

    def condition(self, control: str) -> Mapping[str, Array]:
        if self._table is None:
            return {}
        return {"control": self._table[self._symbols.index(control)]}

    def queue(self, told: Told, feed: Feed, seed: int) -> Queue:
        return self._queue(self._models, self.recipe, told, feed, seed)

    def first(self, told: Told, seed: int, base: Sequence[str]) -> Float32 | None:
        s = self.schedule
        known = s.given + (s.slots if s.fill == "renoise" else 0)
        if not known:
            return None
        key = (seed, tuple(base), told.text[0].tobytes())
        if self._first is None or self._first[0] != key:
            made = self._of_clip(told, seed, base, known) if self._init is None else self._of_frames(known)
            self._first = key, made
        return self._first[1]

    def decoder(self) -> WorldDecoder:
        return WorldDecoder(self._models.vae(self._task).decoder(ENDLESS, *self.shape[2:]), self._alone)

    def _of_frames(self, known: int) -> Float32:
        """The latents of the frames that were given, of which the last one stays; zeros after them."""
        assert self._init is not None
        expected = (self.video.height, self.video.width, 3)
        if self._init.shape[1:] != expected or self._init.dtype != np.uint8:
            raise InputError(f"frames to go on from: expected uint8 (n, *{expected}), got {self._init.shape}")
        vae = self._models.vae(self._task)
        wanted = vae.encodable(
            1 + (min(known, 1 + (len(self._init) - 1) // self._vae.temporal) - 1) * self._vae.temporal
        )
        still = np.repeat(
            self._init[-1:], max(0, wanted - len(self._init)), axis=0
        )  # where its chunks want more frames
        with self._alone:
            found = vae.encode(np.concatenate((self._init[:wanted], still)))[:, :, :known]
        made = np.zeros((1, self.shape[1], known, *self.shape[2:]), np.float32)
        made[:, :, : found.shape[2]] = found
        return made

    def _of_clip(self, told: Told, seed: int, base: Sequence[str], known: int) -> Float32:
        """A clip whose frames are made together, by the denoiser of base videos where there is one."""
        models = self._base or self._models
        spec = models.opener(self._task).bundle.manifest.denoisers[self._task]
        of_clip = clip_recipe(spec, self._base_steps or spec.sampler.steps, known, self._guidance)

        def feed(frame: int) -> Condition | None:
            if frame >= known:
                return None
            return Condition(frame, self.condition(base[min(frame, len(base) - 1)]))

        queue = self._queue(models, of_clip, told, feed, (seed + 0x9E3779B9) % 2**32)  # its noise is not the stream's
        queue.start()
        latents = []
        while not queue.done:
            latents += [frame.latent for frame in queue.run()]
        return np.stack(latents, axis=2)

    def _queue(self, models: Models, of: Recipe, told: Told, feed: Feed, seed: int) -> Queue:
        window, model = self._window(models), models.denoiser(self._task)
        if isinstance(model.device, CudaDevice) and len(self.shape) == 4:
            name = STREAM if models is self._models else BASE
            if name not in self._device_queues:
                which = {"task": self._task, "of": name}
                ranks = models.execution.ranks
                self._device_queues[name] = DeviceQueues(model, self.shape, self._alone, ranks, which)
            return self._device_queues[name].queue(of, told, feed, seed)

        def x0s(asked: Sequence[Asked], conditions: Mapping[str, Array]) -> list[Float32]:
            seen = []
            for one in asked:
                text, given = self._seen(one.model, told, conditions)
                seen.append(Seen(one.model, text, one.x, one.level, given))
            with self._alone:
                return window.x0s(seen)

        return Queue(of.plan, of.table, Jointly(BRANCHES, x0s), self.shape, feed=feed, seed=seed)

    def _window(self, models: Models) -> WindowDenoiser:
        name = STREAM if models is self._models else BASE
        if name not in self._windows:
            self._windows[name] = self._opened(models, name)
        return self._windows[name]

    def _opened(self, models: Models, name: str) -> WindowDenoiser:
        ranks = models.execution.ranks
        if ranks is None:
            return WindowDenoiser(models.denoiser(self._task), self._given())
        with ranks.loading():
            return SharedWindow(models.denoiser(self._task), self._given(), ranks, self._task, name)

    def _given(self) -> set[str]:
        """The conditions that frames bring."""
        return set() if self._table is None else {"control"}

    def _seen(self, branch: str, told: Told, conditions: Mapping[str, Array]) -> tuple[Array, Mapping[str, Array]]:
        """The text and the conditions of a window, with the prompt or without it."""
        return told.text[branch == "uncond"], conditions

    def _format(self, size: tuple[int, int] | None) -> VideoFormat:
        width, height = size or self.spec.first_size
        multiple = self.spec.size_multiple_px
        if width < 1 or height < 1 or width % multiple or height % multiple:
            raise InputError(f"size: expected width and height in multiples of {multiple}, got {width}x{height}")
        fps = int(next(iter(self.spec.frames)))
        return VideoFormat(width, height, fps, pixel_format=self._vae.pixel_format)


class WorldDecoder:
    """Decodes one stream, `alone` on its device where that cannot do two things at once."""

    def __init__(self, decoder: LatentDecoder, alone: AbstractContextManager[Any]) -> None:
        self._decoder, self._alone = decoder, alone

    def __call__(self, latents_BCTHW: Float32) -> Iterator[Picture]:
        with self._alone:
            pictures = list(self._decoder(latents_BCTHW))
        yield from pictures

    def state(self) -> Any:
        with self._alone:
            return self._decoder.state()

    def restore(self, state: Any) -> None:
        self._decoder.restore(state)
