"""Attention of all frames in some of the heads (DeepSpeed-Ulysses, arXiv 2309.14509).

Every rank has some frames in all heads. Before attention it sends to each other rank the heads that are that one's, and
after it the frames: two all-to-alls for each attention, in which a rank receives less the more ranks there are. What is
sent is never padded. Of what every rank has alike, such as the text, a rank takes its heads, and gathers the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from worldrt.engine.device import Buffer
from worldrt.runtime.parallel.communicators.base import Collective, Communicator
from worldrt.runtime.parallel.share import Share

Pair = tuple[Buffer, Buffer]
"""A tensor of all frames in this rank's heads, and of this rank's frames in all heads: (frames, ..., heads, tokens,
size) each."""


@dataclass(frozen=True)
class HeadExchange:
    """Between the ranks that share the frames of `share`, which have as many heads each."""

    share: Share
    context: Communicator
    heads: int

    @property
    def each(self) -> int:
        return self.heads // self.share.parts

    def own(self, tensor: Buffer) -> Buffer:
        """This rank's heads of a tensor (heads, ...)."""
        return tensor[self.share.part * self.each : (self.share.part + 1) * self.each]

    def to_heads(self, pairs: Sequence[Pair]) -> Collective:
        """Give every tensor of all frames in own heads its values."""
        share, parts = self.share, range(self.share.parts)
        empty = [share.repeats(part) for part in parts]
        target = [[] if empty[i] else self._frames(pairs, i) for i in parts]
        source = [[] if empty[share.part] else self._heads(pairs, j) for j in parts]
        return self.context.all_to_all(target, source)

    def to_frames(self, pairs: Sequence[Pair]) -> Collective:
        """Give every tensor of own frames in all heads its values."""
        parts = range(self.share.parts)
        target = [self._heads(pairs, j) for j in parts]
        source = [self._frames(pairs, i) for i in parts]
        return self.context.all_to_all(target, source)

    def _frames(self, pairs: Sequence[Pair], part: int) -> list[Buffer]:
        """A rank's frames of tensors in own heads, in blocks as large as those of `_heads`."""
        made = []
        for every, _ in pairs:
            some = every[self.share.of(part)]
            blocks = math.prod(some.shape[:-3])
            flat = some.reshape((blocks, math.prod(some.shape[-3:])))
            made += [flat[i : i + 1] for i in range(blocks)]
        return made

    def _heads(self, pairs: Sequence[Pair], part: int) -> list[Buffer]:
        """A rank's heads of tensors of own frames: a block for each frame, and whatever else comes before heads."""
        made = []
        for _, own in pairs:
            blocks = math.prod(own.shape[:-3])
            flat = own.reshape((blocks * self.heads, math.prod(own.shape[-2:])))
            made += [flat[i * self.heads + part * self.each :][: self.each] for i in range(blocks)]
        return made
