"""Workers of the parts of a decoder."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.parallel.pools.base import Make
from worldrt.runtime.parallel.pools.worker import Worker
from worldrt.runtime.parallel.vae_parts import DecoderPart, decoder_parts
from worldrt.runtime.vae import Decoder, DecoderState, VaeCodec

ENDLESS = 2**62
Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]


class HasVae(Protocol):
    """A world whose decoder can be cut."""

    @property
    def vae(self) -> VaeCodec:
        """The codec whose decoder it is."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a latent frame."""
        ...


class PartDecoder(Decoder):
    """One part of a decode: takes what the part before gives."""

    def __init__(self, codec: VaeCodec, part: DecoderPart, axes: dict[str, int]) -> None:
        super().__init__(codec, ENDLESS, axes)
        self._part = part

    def waits(self, latents_BCTHW: Array) -> Arrays:
        """Of the first part: the latents of its next call, or nothing while there are too few."""
        self._waiting.append(latents_BCTHW)
        if len(self._waiting) < (self._more if self._done else self._first):
            return ()
        waiting, self._waiting = self._waiting, []
        return (np.concatenate(waiting, axis=2),)

    def run(self, given: Arrays) -> Arrays:
        """The next call."""
        wires = self._part.wires["decode_next" if self._done else "decode_first"]
        call = self._next()
        for name, array in zip(wires.takes, given, strict=True):
            self._codec.upload(call[name], array)
        call.run()
        self._last, self._done = call, self._done + 1
        return tuple(self._codec.device.download(call[name]) for name in wires.gives)


class DecodePartWorker(Worker):
    """Part `index` of `count`, of a stream of `decode`: the first one takes the latents of a row and a place among
    them, the others what the one before gives; the last one gives pictures (n, ...), where n may be 0."""

    def __init__(self, make: Make, index: int, count: int) -> None:
        super().__init__()
        model: HasVae = make()
        self._index, self._is_last = index, index == count - 1
        whole = model.vae
        if len(model.shape) != 4 or "decode_next" not in whole.spec.graphs:
            raise InputError("this decoder has no steps to be cut, since it knows no time; say --num_gpus_vae 1")
        self._axes = {"batch": 1, "rows": model.shape[2], "columns": model.shape[3]}
        self._folder = tempfile.TemporaryDirectory(prefix="worldrt-decoder-")
        bundle = whole.opener.bundle
        self._part = decoder_parts(bundle, count, self._axes, Path(self._folder.name))[index]
        self._codec = VaeCodec(replace(whole.opener, bundle=self._part.bundle), self._part.spec)
        self._decoder = PartDecoder(self._codec, self._part, self._axes)

    def load(self) -> None:
        self._codec.load("decode")

    def decode(self, given: Any, place: int = 0) -> Arrays | Array:
        """The next latent, or what the part before made of it."""
        if self._index == 0:
            given = self._decoder.waits(np.array(given[:, :, place : place + 1]))
        made = self._decoder.run(given) if given else ()
        if not self._is_last:
            return made
        return made[0][0] if made else np.zeros(0, np.uint8)

    def checkpoint(self) -> DecoderState:
        return self._decoder.state()

    def _restore(self, state: DecoderState | None) -> None:
        self._decoder = PartDecoder(self._codec, self._part, self._axes)
        if state is not None:
            self._decoder.restore(state)
