"""What a denoiser is run through for one clip: static buffers, and the calls between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, Device
from worldrt.engine.graphs import StepGraphs
from worldrt.engine.prefetch import BlockWeights
from worldrt.engine.session import Call, Session
from worldrt.engine.tensors import Shape


@dataclass(frozen=True)
class BoundDenoiser:
    """Buffers and calls for one clip.

    `x` float32 (1, C, T, H, W) is the state; `batch` is 2 where both texts go through one call. `cond` and `uncond` are
    views of x0, `uncond` None where there is no guidance. `blocks` are weights that come to the device in turn,
    `graphs` the CUDA graphs of a step; `kept` are buffers of the step itself, by name.
    """

    device: Device
    batch: int
    inputs: Mapping[str, Buffer]
    texts: tuple[Buffer, ...]
    calls: tuple[Call, ...]
    cond: Buffer
    uncond: Buffer | None
    sessions: tuple[Session, ...] = ()
    blocks: BlockWeights | None = None
    graphs: StepGraphs | None = None
    kept: dict[str, Buffer] = field(default_factory=dict)

    @property
    def x(self) -> Buffer:
        return self.inputs["x"][0:1]

    def fill(self, name: str, array: np.ndarray[Any, Any]) -> None:
        """Write an input; it is repeated over the batch where it has none of its own."""
        target = self.inputs[name]
        values = np.ascontiguousarray(np.broadcast_to(array, target.shape), np.float32)
        self.device.upload(target, values)

    def fill_text(self, cond: np.ndarray[Any, Any], uncond: np.ndarray[Any, Any] | None) -> None:
        """Write text rows (N, D) of both branches; `uncond` is ignored where there is no guidance."""
        for target, rows in zip(self.texts, (cond, uncond), strict=False):
            assert rows is not None
            self.device.upload(target, rows[None])

    def keep(self, name: str, shape: Shape, dtype: str) -> Buffer:
        """A buffer that is allocated when first asked for, and has the same address ever after."""
        if name not in self.kept:
            self.kept[name] = self.device.empty(shape, dtype)
        return self.kept[name]

    def run(self) -> None:
        """Evaluate x0 of all branches."""
        if self.blocks is not None:
            self.blocks.begin()
        for call in self.calls:
            call.run()
        if self.blocks is not None:
            self.blocks.end()

    def step(self, key: Hashable, body: Callable[[], None]) -> None:
        """Do a step, which holds `run`: as a CUDA graph where that is possible. `key` says what it depends on besides
        the buffers of this object."""
        if self.graphs is None:
            body()
            return
        generation = None
        if self.blocks is not None:
            self.blocks.prime()
            generation = self.blocks.generation
        self.graphs.run((key, generation, tuple(session.capture_key for session in self.sessions)), body)
