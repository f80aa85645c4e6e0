"""What a denoiser is run through for some clips: static buffers, and the calls between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, Device
from worldrt.engine.graphs import StepGraphs
from worldrt.engine.prefetch import BlockWeights
from worldrt.engine.session import Call, Session
from worldrt.engine.tensors import Shape

Float64 = np.ndarray[Any, np.dtype[np.float64]]
LEVELS = ("level", "last_level")
"""Inputs of a denoiser: the level of each frame; and that of a window's last one, of which a call may see a part."""
ROW = "row"
"""An input (frames, 2) that tells which rows of a frame are here: the first one, and how many it has in all."""
ALL = slice(None)  # parts of an evaluation, as slices of its calls
FIRST, REST = slice(0, 2), slice(2, None)  # the graph before the blocks and the first of them, where there is one


@dataclass(frozen=True)
class BoundDenoiser:
    """Buffers and calls for N clips of one shape that are made together.

    `x` float32 (N, C, T, H, W) is the state; `batch` is 2 N where both texts go through one call, those of the prompts
    first. `cond` and `uncond` are views of x0, `uncond` None where there is no guidance. `calls` evaluate all texts,
    `alone` the prompts only, where that was asked for. `hidden` are the input and the output of the first block, where
    it is a graph of its own. `blocks` are weights that come to the device in turn, `graphs` the CUDA graphs of a step;
    `kept` are buffers of the step itself, by name.
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
    clips: int = 1
    alone: tuple[Call, ...] = ()
    hidden: tuple[Buffer, Buffer] | None = None

    @property
    def x(self) -> Buffer:
        return self.inputs["x"][0 : self.clips]

    def fill(self, name: str, array: np.ndarray[Any, Any]) -> None:
        """Write an input: one array for all clips, or with a row for each clip, which both texts see."""
        target = self.inputs[name]
        if self.clips > 1 and array.ndim == len(target.shape) and len(array) == self.clips < target.shape[0]:
            array = np.concatenate([array] * (target.shape[0] // self.clips))
        values = np.ascontiguousarray(np.broadcast_to(array, target.shape), np.float32)
        self.device.upload(target, values)

    def fill_branch(self, branch: int, name: str, array: np.ndarray[Any, Any]) -> None:
        """Write what one of two branches that go through one call sees of an input."""
        target = self.inputs[name][branch * self.clips : (branch + 1) * self.clips]
        self.device.upload(target, np.ascontiguousarray(np.broadcast_to(array, target.shape), np.float32))

    def fill_levels(self, level: np.ndarray[Any, Any]) -> None:
        """Write the levels of the frames of a window, (N, T), where the graphs take them."""
        for name, values in zip(LEVELS, (level, level[:, -1:]), strict=True):
            if name in self.inputs:
                self.fill(name, values)

    def fill_text(self, cond: np.ndarray[Any, Any], uncond: np.ndarray[Any, Any] | None) -> None:
        """Write text rows (text, D) of both branches, or (N, text, D) with those of each clip; `uncond` is ignored
        where there is no guidance."""
        for target, rows in zip(self.texts, (cond, uncond), strict=False):
            assert rows is not None
            self.device.upload(target, rows.reshape(target.shape))

    def own(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What this process has of an array (N, C, T, ...) over the frames of the clips: all of it."""
        return array

    def result(self) -> np.ndarray[Any, Any]:
        """The state x of whole clips, on the host."""
        return self.device.download(self.x)

    def pieces(self, frames: int, tokens: int) -> tuple[int, int, Sequence[tuple[int, int]]]:
        """Of activations over so many frames here, each of so many tokens: how many frames the clips have, how many
        tokens one of those has, and of each frame here its number and which of its tokens is the first here."""
        return frames, tokens, [(frame, 0) for frame in range(frames)]

    def summed(self, sums: Float64) -> Float64:
        """Sums over what this process has of the clips, added up over all processes; equal in all of them."""
        return sums

    def keep(self, name: str, shape: Shape, dtype: str) -> Buffer:
        """A buffer that is allocated when first asked for, and has the same address ever after."""
        if name not in self.kept:
            self.kept[name] = self.device.empty(shape, dtype)
        return self.kept[name]

    def run(self, *, guided: bool = True, part: slice = ALL) -> None:
        """Evaluate x0 of all branches, or of the prompts alone; or do a part of the calls for it."""
        if self.blocks is not None:
            self.blocks.begin()
        for call in (self.calls if guided or self.uncond is None else self.alone)[part]:
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
