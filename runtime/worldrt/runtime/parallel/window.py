"""Windows of a queue that several ranks share: rank 0 runs the queue, and all evaluate their part of each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from worldrt.runtime.denoise import DenoiserModel
from worldrt.runtime.live.window import Seen, WindowDenoiser
from worldrt.runtime.parallel.bound import SharedBound
from worldrt.runtime.parallel.mesh import BRANCHES
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.wire import Arrays, Message

Array = np.ndarray[Any, Any]
Float32 = np.ndarray[Any, np.dtype[np.float32]]
WINDOW = "window"
STREAM, BASE = "stream", "base"
"""What a window is of: a stream, or the clip that it goes on from, which may have models of its own."""
_OWN = ("x", "level", "text")


class SharedWindow(WindowDenoiser):
    """On rank 0 `x0s` are those of whole windows. The others come to them by `follow`, with what rank 0 has sent: what
    they have is not sent again. `task` and `of` say which denoiser it is among those that ranks have.

    Two branches of guidance are evaluated at once where ranks are halved for them, each by its half; else one after the
    other by all. Ranks of a half share the frames.
    """

    def __init__(self, model: DenoiserModel, given: set[str], ranks: Ranks, task: str, of: str = STREAM) -> None:
        super().__init__(model, given)
        self._given = given
        self._ranks, self._which = ranks, {"task": task, "of": of}
        self._there: dict[tuple[str, tuple[int, ...]], dict[str, Array]] = {}

    def x0s(self, seen: Sequence[Seen]) -> list[Float32]:
        """x0 of each, on rank 0."""
        at_once = BRANCHES if self._halved(len(seen)) else 1
        made: list[Float32] = []
        for first in range(0, len(seen), at_once):
            some = seen[first : first + at_once]
            with self._ranks.turn:
                self._ranks.order(*self._order(some))
                made += self._together(some)
        return made

    def follow(self, message: Message, arrays: Arrays) -> None:
        """Do this rank's part of what rank 0 evaluates."""
        some = []
        for one in message["seen"]:
            branch, shape = one["branch"], tuple(one["shape"])
            there = self._there.setdefault((branch, shape), {})
            there |= {name: arrays[place] for name, place in one["arrays"].items()}
            conditions = {name: array for name, array in there.items() if name not in _OWN}
            some.append(Seen(branch, there["text"], there["x"], there["level"], conditions))
        self._together(some)

    def _halved(self, branches: int) -> bool:
        return branches > 1 and self._ranks.mesh(guided=True).cfg == BRANCHES

    def _together(self, some: Sequence[Seen]) -> list[Float32]:
        """x0 of one branch, or of two by the halves of all ranks."""
        ranks, halved = self._ranks, len(some) == BRANCHES
        own = some[ranks.mesh(guided=True).place(ranks.rank)[0]] if halved else some[0]
        known = (own.branch, own.x.shape, halved) in self._windows
        with self._lock, ranks.window(self._model.device, known=known) as done:
            window = self._window(own, guided=halved)
            window.fill(own)
            bound = window.bound
            assert isinstance(bound, SharedBound)
            bound.step(("x0",), bound.run)
            done()
            parts = (bound.cond, bound.uncond) if halved else (bound.cond,)
            return [bound.whole(bound.device.download(part)) for part in parts if part is not None]

    def _order(self, some: Sequence[Seen]) -> tuple[Message, dict[str, Array]]:
        """Arrays that others do not have, each once, and which one is what."""
        arrays: dict[str, Array] = {}
        places: dict[int, str] = {}
        told = []
        for one in some:
            there = self._there.setdefault((one.branch, one.x.shape), {})
            given = {"x": one.x, "level": one.level, "text": one.text} | {
                name: value for name, value in one.conditions.items() if name not in _OWN
            }
            new = {name: array for name, array in given.items() if there.get(name) is not array}
            there |= new
            for array in new.values():
                arrays[places.setdefault(id(array), str(len(places)))] = array
            of_names = {name: places[id(array)] for name, array in new.items()}
            told.append({"branch": one.branch, "shape": list(one.x.shape), "arrays": of_names})
        return {"do": WINDOW, **self._which, "given": sorted(self._given), "seen": told}, arrays
