"""A denoiser bound to static buffers: one graph, or the chain embed -> blocks -> head.

    bound = model.bind(DenoiserShape(channels=16, frames=5, height=10, width=16, text=512), guided=True)
    bound.fill("text", ...); bound.x, bound.level ...
    bound.run()                      # bound.cond and bound.uncond now hold x0 for the two texts

All buffers are allocated by `bind`; `run` only runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldrt.engine.bundle import Denoiser
from worldrt.engine.device import Buffer, Device
from worldrt.engine.session import Call, Session
from worldrt.engine.tensors import Shape, solve_axes
from worldrt.runtime.components import Opener

STATE = ("hidden", "q", "kv")  # what a block takes from the one before it, in the order of its outputs


@dataclass(frozen=True)
class DenoiserShape:
    """Sizes of one clip: latent channels, frames, rows and columns, and rows of text."""

    channels: int
    frames: int
    height: int
    width: int
    text: int

    def latents(self, batch: int = 1) -> Shape:
        return (batch, self.channels, self.frames, self.height, self.width)


@dataclass(frozen=True)
class BoundDenoiser:
    """Buffers and calls for one clip.

    `x` float32 (1, C, T, H, W) is the state; `batch` is 2 where both texts go through one call. `cond` and `uncond` are
    views of x0, `uncond` None where there is no guidance.
    """

    device: Device
    batch: int
    inputs: Mapping[str, Buffer]
    texts: tuple[Buffer, ...]
    calls: tuple[Call, ...]
    cond: Buffer
    uncond: Buffer | None

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

    def run(self) -> None:
        """Evaluate x0 of all branches."""
        for call in self.calls:
            call.run()


class DenoiserModel:
    """A loaded denoiser; its weights are bound straight from the mapped checkpoint."""

    def __init__(self, opener: Opener, spec: Denoiser) -> None:
        self.spec = spec
        self.device = opener.device
        self._guidance = opener.execution.guidance
        self.sessions = {name: opener.session(spec, name) for name in spec.graphs}
        store = opener.weights(spec)

        def inputs(name: str, block: int = 0) -> dict[str, Buffer]:
            graph = spec.graphs[name]
            return opener.on_device(store.of_graph(graph, block)) if graph.weights_as == "inputs" else {}

        instances = {name: spec.blocks - 1 if name == "block" else 1 for name in spec.graphs}
        self._weights = {name: [inputs(name, i) for i in range(count)] for name, count in instances.items()}

    @property
    def conditions(self) -> set[str]:
        """Names of the inputs beside x, level and text."""
        first = "denoise" if self.spec.form == "whole" else "embed"
        return {spec.name for spec in self.sessions[first].graph.inputs} - {"x", "level", "text"}

    def bind(self, shape: DenoiserShape, *, guided: bool) -> BoundDenoiser:
        """Allocate every buffer for clips of one shape. Raises `ShapeError` where the graphs cannot take it."""
        together = guided and self._guidance == "batched"
        batch = 2 if together else 1
        x = self.device.empty(shape.latents(batch), "float32")
        chain = _Chain(self, {"x": x}, self._axes(shape, batch))
        first = chain.bind()
        chains = [first] if together or not guided else [first, chain.bind()]
        texts, x0s = [c[0] for c in chains], [c[2] for c in chains]
        if together:
            texts, x0s = [texts[0][0:1], texts[0][1:2]], [x0s[0][0:1], x0s[0][1:2]]
        calls = tuple(call for _, made, _ in chains for call in made)
        return BoundDenoiser(self.device, batch, chain.shared, tuple(texts), calls, x0s[0], x0s[1] if guided else None)

    def _axes(self, shape: DenoiserShape, batch: int) -> dict[str, int]:
        entry = self.sessions["denoise" if self.spec.form == "whole" else "embed"]
        axes = solve_axes(entry.graph.inputs, {"x": shape.latents(batch)})
        tokens = axes["rows"] * axes["columns"]
        return axes | {"text": shape.text, "tokens": tokens, "context_frames": shape.frames}

    def weights(self, name: str, instance: int = 0) -> Mapping[str, Buffer]:
        return self._weights[name][instance]


class _Chain:
    """Binds the calls of one evaluation; a second `bind` shares every buffer but text and x0 with the first."""

    def __init__(self, model: DenoiserModel, shared: Mapping[str, Buffer], axes: Mapping[str, int]) -> None:
        self.model, self.axes = model, axes
        self.shared: dict[str, Buffer] = dict(shared)  # by tensor name
        self._states: tuple[Sequence[Buffer], Sequence[Buffer] | None] | None = None

    def bind(self) -> tuple[Buffer, list[Call], Buffer]:
        """The text buffer, the calls in order, and x0."""
        whole = self.model.spec.form == "whole"
        text_spec = next(s for s in self._session("denoise" if whole else "head").graph.inputs if s.name == "text")
        text = self.model.device.empty(text_spec.resolve(self.axes), text_spec.dtype)
        calls = [self._call("denoise", {"text": text})] if whole else self._blocks(text)
        return text, calls, calls[-1]["x0"]

    def _blocks(self, text: Buffer) -> list[Call]:
        old = self._states
        embed_out = dict(zip(STATE, old[0], strict=True)) if old else {}
        calls = [self._call("embed", embed_out)]
        here: Sequence[Buffer] = [calls[0][name] for name in STATE]
        spare: Sequence[Buffer] | None = old[1] if old else None
        first = here
        block = self.model.spec.graphs.get("block")
        made = [spec.name for spec in block.outputs] if block is not None else []
        for i in range(self.model.spec.blocks - 1):
            outputs = dict(zip(made, spare, strict=True)) if spare else {}
            call = self._call("block", dict(zip(STATE, here, strict=True)) | {"text": text} | outputs, i)
            here, spare = [call[name] for name in made], here
            self._states = self._states or (first, here)
            calls.append(call)
        self._states = self._states or (first, None)
        return [*calls, self._call("head", dict(zip(STATE, here, strict=True)) | {"text": text})]

    def _call(self, name: str, given: Mapping[str, Buffer], instance: int = 0) -> Call:
        """Bind with what is shared, and share what the call adds (but text, x0 and the state)."""
        session = self._session(name)
        known = {s.name for s in (*session.graph.inputs, *session.graph.outputs)}
        shared = {n: b for n, b in self.shared.items() if n in known}
        weights = self.model.weights(name, instance)
        call = session.bind(self.axes, {**weights, **shared, **given})
        private = {"text", "x0", *STATE, *given, *weights}
        made = {spec.name for spec in session.graph.outputs} if name == "block" else set()
        self.shared |= {n: b for n, b in call.buffers.items() if n not in private | made}
        return call

    def _session(self, name: str) -> Session:
        return self.model.sessions[name]
