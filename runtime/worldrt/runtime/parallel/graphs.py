"""CUDA graphs of steps that hold collectives: all ranks capture the same steps, and launch the same, or none does.

The sizes of collectives are the same on all ranks, whatever frames these have. Which step it is, whether it can be
captured, and whether the capture went well, is agreed on outside of captures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import RankError
from worldrt.engine.graphs import Mode, StepGraphs
from worldrt.runtime.parallel.control import Control


class AgreedGraphs(StepGraphs):
    """`auto` captures as `on` does: what is measured differs from rank to rank. The first part of a key is the same on
    all ranks."""

    def __init__(self, device: CudaDevice, control: Control, *, mode: Mode, refusal: Callable[[], str | None]) -> None:
        super().__init__(device, mode=mode, refusal=refusal)
        self._control = control

    def _worth(self, body: Callable[[], None]) -> bool:
        reason = self._agreed(self._refusal())
        if reason is not None:
            self._give_up(reason, logging.WARNING if self._mode == "on" else logging.INFO)
            body()
        return reason is None

    def _capture(self, key: Hashable, body: Callable[[], None]) -> None:
        """Raises `RankError` where another rank is about to capture another step."""
        steps = self._control.collect(repr(key[0] if isinstance(key, tuple) else key))
        other = next((rank for rank, step in enumerate(steps) if step != steps[0]), None)
        if other is not None:
            raise RankError(f"rank {other}: it is at step {steps[other]}, and rank 0 at {steps[0]}")
        super()._capture(key, body)

    def _agreed(self, problem: str | None) -> str | None:
        found = enumerate(self._control.collect(problem))
        return next((f"rank {rank}: {text}" for rank, text in found if text is not None), None)
