"""Windows of a queue that several ranks share: rank 0 runs the queue, and all evaluate their frames of each window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worldrt.runtime.denoise import DenoiserModel
from worldrt.runtime.live.window import WindowDenoiser
from worldrt.runtime.parallel.bound import SharedBound
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.wire import Arrays, Message

Float32 = np.ndarray[Any, np.dtype[np.float32]]
WINDOW = "window"
_OWN = ("x", "level", "text")


class SharedWindow(WindowDenoiser):
    """On rank 0 `x0` is that of whole windows. The others come to it by `follow`, with what rank 0 has sent: a text
    only where it is another than before."""

    def __init__(self, model: DenoiserModel, given: set[str], ranks: Ranks, task: str) -> None:
        super().__init__(model, given)
        self._ranks, self._task = ranks, task
        self._texts: dict[str, Float32] = {}

    def x0(self, branch: str, text: Float32, x: Float32, level: Float32, conditions: Mapping[str, Any]) -> Float32:
        own = {"x": x, "level": level} | ({} if self._texts.get(branch) is text else {"text": text})
        self._texts[branch] = text
        arrays = own | {name: np.asarray(value) for name, value in conditions.items()}
        self._ranks.order({"do": WINDOW, "task": self._task, "branch": branch}, arrays)
        with self._ranks.rows(self._model.device) as done:
            made = super().x0(branch, text, x, level, conditions)
            done()
            bound = self._window(branch, x, text.shape[-2]).bound
            assert isinstance(bound, SharedBound)
            return bound.whole(made)

    def follow(self, message: Message, arrays: Arrays) -> None:
        """Do this rank's part of what rank 0 evaluates."""
        branch = message["branch"]
        text = arrays["text"] if "text" in arrays else self._texts[branch]
        conditions = {name: value for name, value in arrays.items() if name not in _OWN}
        self.x0(branch, text, arrays["x"], arrays["level"], conditions)


def conditions_in(arrays: Arrays) -> set[str]:
    """The conditions that frames bring, by what rank 0 has sent."""
    return set(arrays) - set(_OWN)
