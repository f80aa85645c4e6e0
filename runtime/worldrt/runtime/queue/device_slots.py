"""The latents of a queue on a GPU, and the work that is done on them: what `slots.py` does on the host, by the same
kernels. Nothing here waits, and what a captured step needs is allocated before it."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import Buffer
from worldrt.engine.tensors import ITEM_BYTES, Shape
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.level_table import LevelTable
from worldrt.runtime.queue.noise import Float32
from worldrt.runtime.updates import bind_copy

Array = np.ndarray[Any, Any]
Alone = AbstractContextManager[Any]
"""What is held while the device is used: one thread at a time gives it work."""
KEPT = 256
"""Small arrays that stay on the device, to be had again without being sent."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Some places of a buffer, seen as (B, C, places, ...). With `by_frame` places are its first axis."""

    buffer: Buffer
    start: int
    stop: int
    by_frame: bool = False

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        first, second, third, *inner = self.buffer.shape
        batch, channels, places = (second, third, first) if self.by_frame else (first, second, third)
        size = prod(inner) * ITEM_BYTES[self.buffer.dtype]
        each = (channels * size, size, batch * channels * size) if self.by_frame else (
            channels * places * size, places * size, size)  # fmt: skip
        dense = tuple(ITEM_BYTES[self.buffer.dtype] * prod(inner[axis + 1 :]) for axis in range(len(inner)))
        return {
            "shape": (batch, channels, self.stop - self.start, *inner),
            "typestr": np.dtype(self.buffer.dtype).str,
            "data": (self.buffer.pointer + self.start * each[2], False),
            "version": 3,
            "strides": (*each, *dense),
        }


@dataclass(frozen=True)
class Step:
    """The step of a call: `rows` takes the coefficients of the written places, `gather` puts the window into the
    denoiser, `update` makes the step of its prediction."""

    rows: Buffer
    gather: Callable[[], None]
    update: Callable[[], None]


class DeviceSlots:
    """Latents (B, C, places, ...), their x0 of the step before, and noise, all float32 on a GPU."""

    def __init__(
        self, device: CudaDevice, shape: Shape, places: int, table: LevelTable, seed: int, alone: Alone
    ) -> None:
        self._alone = alone
        self.device, self._shape, self._places, self._seed = device, shape, places, seed
        batch, channels, *rest = shape
        whole, by_frame = (batch, channels, places, *rest), (places, *shape)
        self.latents, self._staged = self._zeros(whole), self._zeros(whole)
        self.previous = self._zeros(whole) if table.needs_previous else None
        self._noise = self._zeros(by_frame) if table.needs_noise else None
        self._fill, self._one = self._zeros(by_frame), self._zeros((batch, channels, 1, *rest))
        self._same = device.empty((places, 4), "float64")
        device.upload(self._same, np.tile([1.0, 0.0, 0.0, 0.0], (places, 1)))
        self._scales = device.empty((places,), "float64")
        self._scale: float | None = None
        self._steps: dict[tuple[int, int, int, int, bool], Step] = {}

    def put(self, place: int, latent: Float32) -> None:
        """Write one place (B, C, ...)."""
        self.device.upload(self._one, np.ascontiguousarray(latent[:, :, None]))
        self._copy(Frames(self._one, 0, 1), Frames(self.latents, place, place + 1), 1)

    def take(self, place: int) -> Float32:
        """One place, on the host. Waits for the device."""
        self._copy(Frames(self.latents, place, place + 1), Frames(self._one, 0, 1), 1)
        latent: Float32 = self.device.download(self._one)[:, :, 0]
        return latent

    def state(self) -> dict[str, Array]:
        """Copies of what the next rows depend on."""
        empty = np.zeros(0, np.float32)
        with self._alone:
            previous = empty if self.previous is None else self.device.download(self.previous)
            return {"latents": self.device.download(self.latents), "previous": previous}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put that back."""
        with self._alone:
            self.device.upload(self.latents, state["latents"])
            if self.previous is not None:
                self.device.upload(self.previous, state["previous"])

    def prepare_shift(self, scale: float) -> None:
        """Say what the noise that enters is multiplied by; to be called before a shift is captured."""
        if self._scale != scale:
            self.device.upload(self._scales, np.full(self._places, scale))
            self._scale = scale

    def shift_in(self, count: int, counters: Buffer, first: Buffer) -> None:
        """The first `count` places leave; noise by these counters (count, 4) enters behind the last ones."""
        self._normal(self._fill[0:count], counters, first=first, scales=self._scales[0:count])
        latents, history = Frames(self.latents, 0, self._places), self.previous or self.latents
        kept = None if self.previous is None else Frames(self.previous, 0, self._places)
        self._update(
            latents,
            kept or Frames(history, 0, self._places),
            coefficients=self._same,
            shift=count,
            fill=Frames(self._fill, 0, count, by_frame=True),
            out=latents,
            guided_out=kept,
        )

    def draw(self, counters: Buffer, first: Buffer) -> None:
        """Make the noise of a step: by these counters (slots, 4) for the last places."""
        assert self._noise is not None
        slots = counters.shape[0]
        self._normal(self._noise[self._places - slots : self._places], counters, first=first)

    def step(
        self, start: int, write_start: int, write_stop: int, bound: BoundDenoiser, guidance: float, alone: bool
    ) -> Step:
        """The step of a window from place `start` on. `alone`: it is the only one of its row, and nothing is staged."""
        frames = bound.x.shape[2]
        key = (start, frames, write_start, write_stop, alone)
        if key not in self._steps:
            rows = self.device.empty((write_stop - write_start, 4), "float64")
            x, written = Frames(bound.x, 0, frames), (write_start - start, write_stop - start)
            twin = bound.inputs["x"][bound.clips :] if bound.batch > bound.clips else None
            follow = None if twin is None else bind_copy(self.device, twin, bound.x)

            def gather() -> None:
                self._copy(Frames(self.latents, start, start + frames), x, frames)
                if follow is not None:
                    follow()

            def there(buffer: Buffer | None, by_frame: bool = False) -> Frames | None:
                return None if buffer is None else Frames(buffer, write_start, write_stop, by_frame)

            latents, previous = there(self.latents), there(self.previous)

            def update() -> None:
                self._update(
                    latents,
                    Frames(bound.cond, *written),
                    uncond=None if bound.uncond is None else Frames(bound.uncond, *written),
                    guidance=guidance,
                    prev=previous,
                    noise=there(self._noise, by_frame=True),
                    coefficients=rows,
                    out=latents if alone else there(self._staged),
                    guided_out=previous,
                )

            self._steps[key] = Step(rows, gather, update)
        return self._steps[key]

    def commit(self, start: int, stop: int) -> None:
        """Make a staged step the state."""
        self._copy(Frames(self._staged, start, stop), Frames(self.latents, start, stop), stop - start)

    def _copy(self, source: Frames, target: Frames, count: int) -> None:
        self._update(source, source, coefficients=self._same[0:count], out=target)

    def _update(self, *arrays: Any, **options: Any) -> None:
        update = importlib.import_module("worldrt.kernels.cuda").multistep_update
        update(*arrays, **options, stream=self.device.stream)

    def _normal(self, out: Buffer, counters: Buffer, **options: Any) -> None:
        normal = importlib.import_module("worldrt.kernels.cuda").counter_normal
        normal(out, counters, **options, seed=self._seed, stream=self.device.stream)

    def _zeros(self, shape: Shape) -> Buffer:
        made = self.device.empty(shape, "float32")
        self.device.upload(made, np.zeros(shape, np.float32))
        return made


class Windows:
    """The denoisers that queues on one GPU run their windows through, by the number of frames, and what their inputs
    hold. Queues may use them in turn."""

    def __init__(self, device: CudaDevice, bind: Callable[[int], BoundDenoiser]) -> None:
        self.device, self.placed = device, Placed(device)
        self._bind = bind
        self._bound: dict[int, BoundDenoiser] = {}
        self._told: dict[int, tuple[object, object]] = {}

    def of(self, frames: int, texts: tuple[Float32, Float32 | None]) -> BoundDenoiser:
        """The denoiser of a window, with these texts: the same objects as before are not sent again."""
        if frames not in self._bound:
            self._bound[frames] = self._bind(frames)
        bound = self._bound[frames]
        if any(now is not then for now, then in zip(texts, self._told.get(frames, (self, self)), strict=True)):
            bound.fill_text(*texts)
            self._told[frames] = texts
        return bound


class Placed:
    """Small arrays on their way to fixed places of a device. One that is in its place is not copied, and one that was
    there before is not sent again."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._there: WeakKeyDictionary[Buffer, object] = WeakKeyDictionary()
        self._kept: OrderedDict[tuple[Shape, bytes], Buffer] = OrderedDict()

    def put(self, place: Buffer, array: Array) -> None:
        """Have an array, broadcast to the shape of the place, there."""
        values = np.ascontiguousarray(np.broadcast_to(array, place.shape))
        key = (place.shape, values.tobytes())
        if self._there.get(place) == key:
            return
        if key not in self._kept:
            memory = self._device.empty(place.shape, place.dtype)
            self._device.upload(memory, values)
            self._kept[key] = memory
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        self.copy(place, self._kept[key], key)

    def send(self, place: Buffer, key: object, make: Callable[[], Array]) -> None:
        """Upload what `make` gives, unless `key` says that the place has it."""
        if self._there.get(place) != key:
            self._device.upload(place, make())
            self._there[place] = key

    def copy(self, place: Buffer, source: Buffer, key: object) -> None:
        """Copy between buffers of the device, unless `key` says that the place has it."""
        if self._there.get(place) != key:
            self._device.copy(place, source)
            self._there[place] = key
