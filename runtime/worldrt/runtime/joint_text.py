"""Prompts to the text of several encoders: each fills its rows and channels of one array, the rest is zero."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from worldrt.engine.errors import BundleError
from worldrt.runtime.text import Float32, TextEncoder

KEPT_PROMPTS = 32


class Encoded(NamedTuple):
    """A prompt: its rows (rows, width), and one embedding of the whole (pooled,)."""

    text: Float32
    pooled: Float32


class JointText:
    """`encode(prompt)` gives read-only float32 arrays. The last prompts are kept. Raises `BundleError` for encoders of
    which the bundle does not say where their rows lie."""

    def __init__(self, encoders: Sequence[TextEncoder]) -> None:
        self._encoders = tuple(encoders)
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._places = []
        for encoder in encoders:
            if encoder.spec.place is None:
                raise BundleError(
                    f"text encoder '{encoder.spec.tokenizer}': its place is missing; export the bundle again"
                )
            self._places.append(encoder.spec.place)
        ends = [place.row + e.spec.max_tokens for place, e in zip(self._places, encoders, strict=True)]
        self.shape = max(ends), max(e.spec.width for e in encoders)
        """(rows, width) of an encoded prompt."""

    def encode(self, prompt: str) -> Encoded:
        """Raises `InputError` where an encoder refuses the prompt."""
        if prompt not in self._kept:
            self._kept[prompt] = self._joined(prompt)
            if len(self._kept) > KEPT_PROMPTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(prompt)
        return self._kept[prompt]

    def _joined(self, prompt: str) -> Encoded:
        text = np.zeros(self.shape, np.float32)
        parts: dict[int, Float32] = {}
        for encoder, place in zip(self._encoders, self._places, strict=True):
            rows = encoder.encode(prompt)
            text[place.row : place.row + len(rows), place.channel : place.channel + rows.shape[1]] = rows
            whole = encoder.pooled(prompt)
            if place.pooled is not None and whole is not None:
                parts[place.pooled] = whole
        pooled = np.zeros(max((start + len(part) for start, part in parts.items()), default=0), np.float32)
        for start, part in parts.items():
            pooled[start : start + len(part)] = part
        text.flags.writeable = pooled.flags.writeable = False
        return Encoded(text, pooled)
