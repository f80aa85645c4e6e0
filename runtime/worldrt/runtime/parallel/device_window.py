"""Windows of a queue on a GPU that several ranks share.

The queue lies on rank 0's GPU. A step begins there with a broadcast of the window, of which every rank takes its part,
and ends with a gather of x0; all of that is work of the GPUs' streams and part of a step's CUDA graph. Only that there
is a step goes between the processes, and texts where they are others than before.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, Device
from worldrt.engine.session import Call
from worldrt.engine.tensors import ITEM_BYTES, Shape
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.parallel.bound import SharedBound
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.share import FRAMES, Share
from worldrt.runtime.parallel.wire import Arrays, Message

Array = np.ndarray[Any, Any]
DEVICE_WINDOW = "device window"
KEPT = 16
"""Kinds of steps that have a number; as many CUDA graphs as are kept, and more."""


@dataclass(frozen=True, eq=False)
class Part:
    """Rows `top` to `bottom` of frames `start` to `stop` of a buffer (B, C, frames, H, W)."""

    buffer: Buffer
    start: int
    stop: int
    top: int
    bottom: int

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        batch, channels, _, _, width = self.buffer.shape
        size = ITEM_BYTES[self.buffer.dtype]
        strides = tuple(size * prod(self.buffer.shape[axis + 1 :]) for axis in range(5))
        return {
            "shape": (batch, channels, self.stop - self.start, self.bottom - self.top, width),
            "typestr": np.dtype(self.buffer.dtype).str,
            "data": (self.buffer.pointer + self.start * strides[2] + self.top * strides[3], False),
            "version": 3,
            "strides": strides,
        }


@dataclass
class _Said:
    """What the other ranks have been told: the kinds of steps, by number, and whether the texts of this window."""

    steps: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)
    next: int = 0
    texts: dict[str, Array] = field(default_factory=dict)

    def number(self, key: Hashable) -> int:
        if key not in self.steps:
            self.steps[key], self.next = self.next, self.next + 1
            while len(self.steps) > KEPT:
                self.steps.popitem(last=False)
        self.steps.move_to_end(key)
        return self.steps[key]


@dataclass(frozen=True)
class WholeWindow(BoundDenoiser):
    """`shared`, a rank's part, as a denoiser of the whole window; on rank 0 a step has the others do theirs, to whom
    `which` says what window it is."""

    shared: SharedBound | None = None
    ranks: Ranks | None = None
    which: Message = field(default_factory=dict)
    said: _Said = field(default_factory=_Said)
    known: set[int] = field(default_factory=set)

    def fill_text(self, cond: Array, uncond: Array | None) -> None:
        assert self.shared is not None
        self.shared.fill_text(cond, uncond)
        self.said.texts.update({"cond": cond} | ({} if uncond is None else {"uncond": uncond}))

    def step(self, key: Hashable, body: Callable[[], None]) -> None:
        assert self.ranks is not None
        with self.ranks.turn:
            number, texts = self.said.number(key), dict(self.said.texts)
            self.said.texts.clear()
            self.ranks.order({"do": DEVICE_WINDOW, **self.which, "step": number}, texts)
            with self._watched(number) as done:
                super().step(number, body)
                done()

    def follow(self, message: Message, arrays: Arrays) -> None:
        """Do this rank's part of a step of rank 0."""
        if message["step"] is None:
            return  # it was only to be bound
        if arrays:
            self.fill_text(arrays["cond"], arrays.get("uncond"))
        with self._watched(message["step"]) as done:
            super().step(message["step"], self.run)
            done()

    def _watched(self, number: int) -> AbstractContextManager[Callable[[], None]]:
        assert self.ranks is not None
        known = number in self.known
        self.known.add(number)
        return self.ranks.window(self.device, known=known)


def whole_window(own: SharedBound, ranks: Ranks, latents: Shape, given: set[str], which: Message) -> WholeWindow:
    """`own`, this rank's part of a window of `latents` (1, C, F, H, W), as the whole of it. `given` are the inputs that
    the queue fills for each step; all others have been filled."""
    device, share = own.device, own.share
    whole = {name: device.empty(_whole_shape(own, name, latents), "float32") for name in sorted(given)}
    everyone = ranks.among(range(ranks.size))
    begin = [everyone.broadcast(buffer, 0) for buffer in whole.values()]
    begin += [copy for name, buffer in whole.items() for copy in _taken(own, name, buffer)]
    cond, uncond, end = own.cond, own.uncond, []
    if own.context is not None:
        cond = device.empty(latents, "float32")
        end = _joined(own, own.cond, cond, "cond")
        if own.uncond is not None:
            uncond = device.empty(latents, "float32")
            end += _joined(own, own.uncond, uncond, "uncond")
        if share.group:
            end = []  # rank 0 is in the other group
    return WholeWindow(
        device,
        1,
        {**own.inputs, **whole},
        own.texts,
        (Call({}, _each(begin)), *own.calls, Call({}, _each(end))),
        cond,
        uncond,
        own.sessions,
        own.blocks,
        own.graphs,
        shared=own,
        ranks=ranks,
        which=which,
    )


def _whole_shape(own: SharedBound, name: str, latents: Shape) -> Shape:
    if name == "x":
        return latents
    spec, here = own.specs[name], own.inputs[name].shape
    whole = tuple(latents[2] if axis == FRAMES else size for axis, size in zip(spec.shape, here, strict=True))
    return (1, *whole[1:])


def _taken(own: SharedBound, name: str, whole: Buffer) -> Iterator[Callable[[], None]]:
    """The copies that fill an input with this rank's part, for both texts where they are evaluated together."""
    share, target = own.share, own.inputs[name]
    by_frame = FRAMES in own.specs[name].shape
    for row in range(target.shape[0]):
        mine = target[row : row + 1]
        if name == "x":
            yield from (_strided(own, there, here) for there, here in _places(share, share.part, whole, mine))
        elif not by_frame:
            yield _copy(own.device, mine, whole)
        else:
            frames, here = whole.reshape(whole.shape[1:]), mine.reshape(mine.shape[1:])
            runs = range(1) if share.cuts == 1 else range(share.count)
            for i in runs:
                count = share.count if share.cuts == 1 else 1
                first = share.frames.start if share.cuts == 1 else (share.frames.start + i) // share.cuts
                yield _copy(own.device, here[i : i + count], frames[first : first + count])


def _joined(own: SharedBound, part: Buffer, whole: Buffer, name: str) -> list[Callable[[], None]]:
    """What gives all ranks of a group the frames of all."""
    share, context = own.share, own.context
    assert context is not None
    size = prod(part.shape) // share.count
    sent = own.keep(f"sent {name}", (share.each * size,), "float32")
    every = own.keep(f"every {name}", (share.parts, share.each * size), "float32")
    steps = [_copy(own.device, sent[0 : share.count * size].reshape(part.shape), part), context.all_gather(every, sent)]
    for other in range(share.parts):
        if not share.repeats(other):
            count = share.of(other).stop - share.of(other).start
            shape = (*part.shape[:2], count, *part.shape[3:])
            block = every[other : other + 1].reshape((share.each * size,))[0 : count * size].reshape(shape)
            steps += [_strided(own, here, there) for there, here in _places(share, other, whole, block)]
    return steps


def _places(share: Share, part: int, whole: Buffer, mine: Buffer) -> Iterator[tuple[Part, Part]]:
    """Where the frames of a rank are in the window, and where they are in its part."""
    pieces, height = share.of(part), whole.shape[3] // share.cuts
    if share.cuts == 1:
        count = pieces.stop - pieces.start
        yield Part(whole, pieces.start, pieces.stop, 0, height), Part(mine, 0, count, 0, height)
        return
    for i, piece in enumerate(range(pieces.start, pieces.stop)):
        frame, cut = divmod(piece, share.cuts)
        yield Part(whole, frame, frame + 1, cut * height, (cut + 1) * height), Part(mine, i, i + 1, 0, height)


def _strided(own: SharedBound, source: Part, target: Part) -> Callable[[], None]:
    """A copy by the kernel of updates, with x' = 1 x."""
    frames = source.stop - source.start
    same = own.keep(f"same {frames}", (frames, 4), "float64")
    own.device.upload(same, np.tile([1.0, 0.0, 0.0, 0.0], (frames, 1)))
    update = importlib.import_module("worldrt.kernels.cuda").multistep_update
    stream = getattr(own.device, "stream", 0)
    return lambda: update(source, source, coefficients=same, out=target, stream=stream)


def _copy(device: Device, target: Buffer, source: Buffer) -> Callable[[], None]:
    return lambda: device.copy(target, source)


def _each(steps: list[Callable[[], None]]) -> Callable[[], None]:
    def run() -> None:
        for step in steps:
            step()

    return run
