"""A denoiser bound to static buffers: one graph, or the chain embed -> blocks -> head.

    bound = model.bind(DenoiserShape(channels=16, frames=5, height=10, width=16, text=512), guided=True)
    bound.fill("text", ...); bound.x, bound.level ...
    bound.run()                      # bound.cond and bound.uncond now hold x0 for the two texts

All buffers are allocated by `bind`; `run` only runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from worldrt.engine.bundle import Denoiser, Graph
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import Buffer
from worldrt.engine.errors import BundleError, DeviceMemoryError, ShapeError
from worldrt.engine.graphs import StepGraphs
from worldrt.engine.prefetch import BlockWeights
from worldrt.engine.session import Call, Session
from worldrt.engine.tensors import Shape, TensorSpec, solve_axes
from worldrt.runtime.bound import ROW, BoundDenoiser
from worldrt.runtime.chain import ATTEND, NEXT, carried_of, conditions_of, entry_of, heads_of
from worldrt.runtime.components import Opener
from worldrt.runtime.pool import Pool


@dataclass(frozen=True)
class DenoiserShape:
    """Sizes of a clip: latent channels, frames, rows and columns, and rows of text; how many clips are made together;
    and how many views a frame has, where the model knows views."""

    channels: int
    frames: int
    height: int
    width: int
    text: int
    clips: int = 1
    views: int | None = None

    def latents(self, branches: int = 1) -> Shape:
        views = () if self.views is None else (self.views,)
        return (branches * self.clips, self.channels, self.frames, *views, self.height, self.width)


class DenoiserModel:
    """A loaded denoiser. On the host its weights are bound straight from the mapped checkpoint; on a GPU those of its
    blocks stay there as far as memory allows."""

    def __init__(self, opener: Opener, spec: Denoiser) -> None:
        self.spec = spec
        self.device = opener.device
        self._guidance, self._mode = opener.execution.guidance, opener.execution.cuda_graphs
        self._last: tuple[tuple[DenoiserShape, bool, bool], BoundDenoiser] | None = None
        store = opener.weights(spec)
        shared = opener.takes_weights(spec, store)
        self.sessions = {  # one for all instances of a graph, or one each where weights are constants
            _instance(name, i): opener.session(spec, name, store, i)
            for name in spec.graphs
            for i in spec.instances(name)[: 1 if shared or spec.form == "whole" else None]
        }

        def inputs(name: str, block: int) -> Mapping[str, Buffer]:
            graph = spec.graphs[name]
            return store.of_graph(graph, block) if graph.weights_as == "inputs" and shared else {}

        on_host = {(name, i): inputs(name, i) for name in spec.graphs for i in spec.instances(name)}
        self._blocks = None
        if isinstance(self.device, CudaDevice) and spec.form == "block" and spec.blocks > 1:
            keys = [(spec.block_graph(i), i) for i in range(spec.blocks - 1)]
            if on_host[keys[0]]:
                self._blocks = BlockWeights(self.device, [on_host.pop(key) for key in keys])
        self._weights = {key: opener.on_device(given) for key, given in on_host.items()}

    @property
    def loaded(self) -> bool:
        return bool(self.sessions)

    def unload(self) -> None:
        """Free graphs, weights and the buffers of the last clip; another model takes this one's place."""
        self.sessions, self._weights, self._blocks, self._last = {}, {}, None, None

    @property
    def batched(self) -> bool:
        """Whether both texts of guidance go through one call."""
        return self._guidance == "batched"

    @property
    def conditions(self) -> set[str]:
        """Names of the inputs beside x, levels and text."""
        return conditions_of(self.spec)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the first graph."""
        return self._entry.inputs

    @property
    def _entry(self) -> Graph:
        return entry_of(self.spec)

    def bind(self, shape: DenoiserShape, *, guided: bool, alone: bool = False) -> BoundDenoiser:
        """Allocate every buffer for clips of one shape. `alone`: the prompts may be evaluated without the other texts,
        too. Raises `ShapeError` where the graphs cannot take it, and `DeviceMemoryError`."""
        try:
            return self._bind(shape, guided, alone)
        except DeviceMemoryError:
            if self._blocks is None or not self._blocks.release():
                raise
        return self._bind(shape, guided, alone)  # with fewer weights on the device

    def bind_again(self, shape: DenoiserShape, *, guided: bool, alone: bool = False) -> BoundDenoiser:
        """`bind` for a clip that is over before the next one: on a GPU, buffers and CUDA graphs of the last one serve
        again where it had the same shape, and go where it had not."""
        if not isinstance(self.device, CudaDevice):
            return self.bind(shape, guided=guided, alone=alone)
        key = (shape, guided, alone)
        if self._last is None or self._last[0] != key:
            self._last = None
            self._last = (key, self.bind(shape, guided=guided, alone=alone))
        return self._last[1]

    def _bind(self, shape: DenoiserShape, guided: bool, alone: bool) -> BoundDenoiser:
        together, clips = guided and self._guidance == "batched", shape.clips
        pool = Pool(self.device, self._axes(shape, 2 if together else 1))
        branches = ("both",) if together else ("cond", "uncond") if guided else ("cond",)
        if self._blocks is not None and not self._blocks.settled:  # all else first: weights share what memory is left
            for branch in branches:
                list(self._chain(pool, branch))
            self._blocks.settle()
        chains = [tuple(self._chain(pool, branch)) for branch in branches]
        if ROW in pool.made:
            whole = np.array([[0, self._rows(shape)]] * pool.axes["frames"], np.float32)
            self.device.upload(pool.made[ROW], whole)
        texts, x0s = ([pool.made[f"{name} {branch}"] for branch in branches] for name in ("text", "x0"))
        if together:
            texts, x0s = ([both[0][:clips], both[0][clips:]] for both in (texts, x0s))
            if alone:
                chains.insert(0, tuple(self._chain(pool.front(self._axes(shape, 1)), "both")))
        sessions = tuple(self.sessions.values())
        graphs = None
        if isinstance(self.device, CudaDevice):
            graphs = StepGraphs(self.device, mode=self._mode, refusal=lambda: _refusal(sessions))
        return BoundDenoiser(
            self.device,
            pool.made["x"].shape[0],
            pool.made,
            tuple(texts),
            chains[-1] if together else tuple(call for chain in chains for call in chain),
            x0s[0],
            x0s[1] if guided else None,
            sessions,
            self._blocks,
            graphs,
            clips=clips,
            alone=chains[0] if alone or not together else (),
            hidden=(pool.made["hidden 0"], pool.made["hidden 1"]) if "hidden 1" in pool.made else None,
        )

    def weights(self, name: str, instance: int = 0) -> Mapping[str, Buffer]:
        """The weight inputs of one instance of a graph; empty where they are in the graph."""
        if self._blocks is not None and name in self.spec.block_graphs():
            return self._blocks.of(instance)
        return self._weights[name, instance]

    def _axes(self, shape: DenoiserShape, branches: int) -> dict[str, int]:
        axes = solve_axes(self._entry.inputs, {"x": shape.latents(branches)})
        fixed = self.spec.sparse is not None or self.spec.layout is not None
        expected = ("batch", "frames") if fixed else ("batch", "frames", "rows", "columns")
        if not set(expected) <= set(axes):
            raise BundleError(f"{self._entry.file}: expected x over {', '.join(expected)}, got {', '.join(axes)}")
        if self.spec.sparse is not None and shape.frames < 2:
            raise ShapeError(f"{self._entry.file}: a sparse model takes two latent frames or more, got {shape.frames}")
        if "rows" in axes:
            axes["tokens"] = axes["rows"] * axes["columns"]
        if ATTEND in self.spec.graphs:
            axes["heads"] = heads_of(self.spec)
        seen = {"context_frames": shape.frames, "window_frames": shape.frames, "context_views": shape.views or 1}
        return axes | {"text": shape.text} | seen

    def _rows(self, shape: DenoiserShape) -> int:
        """Rows of tokens of a frame; 1 where the graphs know none."""
        if self.spec.sparse is not None:
            return self.spec.sparse.grid[0]
        return solve_axes(self._entry.inputs, {"x": shape.latents()}).get("rows", 1)

    def _chain(self, pool: Pool, branch: str) -> Iterator[Call]:
        """The calls of one evaluation. Branches share all buffers but text and x0; blocks go to and fro between two
        sets of activations."""
        own = {"text": f"text {branch}", "x0": f"x0 {branch}"}
        if self.spec.form == "whole":
            yield self._call(pool, "denoise", own)
            return
        sides = dict.fromkeys(carried_of(self.spec), 0)
        yield self._call(pool, "embed", own | self._roles("embed", sides))
        attend = [self._call(pool, ATTEND, {})] if ATTEND in self.spec.graphs else []
        for i in range(self.spec.blocks - 1):
            name = self.spec.block_graph(i)
            yield _behind(attend, self._call(pool, name, own | self._roles(name, sides), i))
        yield _behind(attend, self._call(pool, "head", own | self._roles("head", sides)))

    def _roles(self, name: str, sides: dict[str, int]) -> dict[str, str]:
        """Roles of what is carried, each in one of two buffers, `sides`: what takes one gives the next in the other."""
        roles = {carried: f"{carried} {side}" for carried, side in sides.items()}
        for output in self.spec.graphs[name].outputs:
            carried = output.name.removeprefix(NEXT)
            if carried != output.name and carried in sides:
                sides[carried] = 1 - sides[carried]
                roles[output.name] = f"{carried} {sides[carried]}"
        return roles

    def _call(self, pool: Pool, name: str, roles: Mapping[str, str], instance: int = 0) -> Call:
        """Bind each tensor of a graph to the buffer of its role, which is its name unless `roles` says another."""
        own = self.sessions.get(_instance(name, instance))
        session = own or self.sessions[_instance(name, self.spec.instances(name)[0])]
        specs = (*session.graph.inputs, *session.graph.outputs)
        buffers = {spec.name: pool.take(roles.get(spec.name, spec.name), spec) for spec in specs}
        call = session.bind(pool.axes, {**self.weights(name, instance), **buffers})
        if self._blocks is not None and name in self.spec.block_graphs():
            return Call(call.buffers, self._blocks.call(instance, call.run))
        return call


def _behind(before: list[Call], call: Call) -> Call:
    """A call with another one before it."""
    if not before:
        return call
    (first,) = before

    def both() -> None:
        first.run()
        call.run()

    return Call(call.buffers, both)


def _instance(name: str, block: int) -> str:
    return f"{name} {block}" if block else name


def _refusal(sessions: tuple[Session, ...]) -> str | None:
    """Why a step cannot be captured, or None."""
    return next((reason for session in sessions if (reason := session.capture_refusal)), None)
