"""A session is a loaded graph; a call is one binding of it to fixed buffers, that can be run again and again.

    session = open_session("onnxruntime", path, graph, device=device)
    call = session.bind({"batch": 2, "frames": 5, ...}, {"text": text_buffer})
    call["x"].numpy()[...] = latents       # buffers that were not given are allocated once, here
    call.run()                             # no allocation, no check
    call["x0"].numpy()

Two calls of one session may share buffers: the output caches of one step are bound as the inputs of the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldrt.engine import plugin
from worldrt.engine.bundle import Graph
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError, ShapeError
from worldrt.engine.plans import Profile
from worldrt.engine.tensors import Shape, TensorSpec, solve_axes
from worldrt.engine.weights import WeightStore


@dataclass(frozen=True)
class Call:
    """A graph bound to buffers. `run` enqueues it on the session's device; on the host it returns when done."""

    buffers: Mapping[str, Buffer]
    run: Callable[[], None] = field(repr=False)

    def __getitem__(self, name: str) -> Buffer:
        return self.buffers[name]


class Session(ABC):
    """A loaded graph. Backends implement `_prepare`."""

    def __init__(self, graph: Graph, device: Device) -> None:
        self.graph = graph
        self.device = device

    @property
    def _weight_specs(self) -> tuple[TensorSpec, ...]:
        if self.graph.weights_as == "external":
            return ()
        return tuple(TensorSpec(w.name, w.dtype, w.shape) for w in self.graph.weights)

    def bind(self, axes: Mapping[str, int], given: Mapping[str, Buffer] | None = None) -> Call:
        """Bind inputs, weights and outputs. Buffers not given are allocated on the device, zeroed on the host.

        `axes` adds to what the shapes of the given buffers say. Raises `ShapeError` where a buffer does not fit, an
        axis is unknown or contradictory, or a weight input is not given.
        """
        given = dict(given or {})
        specs = {spec.name: spec for spec in (*self.graph.inputs, *self._weight_specs, *self.graph.outputs)}
        for name in given:
            if name not in specs:
                raise ShapeError(f"{self.graph.file}: no tensor '{name}'; there are: {', '.join(specs)}")
        solved = solve_axes(specs.values(), {name: buffer.shape for name, buffer in given.items()}) | dict(axes)
        buffers = {name: self._fit(spec, spec.resolve(solved), given.get(name)) for name, spec in specs.items()}
        return Call(buffers, self._prepare(buffers))

    def _fit(self, spec: TensorSpec, shape: Shape, buffer: Buffer | None) -> Buffer:
        if buffer is None:
            if any(spec.name == weight.name for weight in self._weight_specs):
                raise ShapeError(f"{self.graph.file}: the weight input '{spec.name}' is not given")
            return self.device.empty(shape, spec.dtype)
        if (buffer.shape, buffer.dtype, buffer.device) != (shape, spec.dtype, self.device.name):
            raise ShapeError(
                f"{self.graph.file}: '{spec.name}': expected {spec.dtype}{list(shape)} on {self.device.name}, "
                f"got {buffer.dtype}{list(buffer.shape)} on {buffer.device}"
            )
        return buffer

    @property
    def capture_refusal(self) -> str | None:
        """Why calls of this session cannot be part of a CUDA graph, or None where they can."""
        return f"{type(self).__name__} cannot be captured"

    @property
    def capture_key(self) -> Hashable:
        """What a captured call depends on besides its buffers."""
        return None

    @abstractmethod
    def _prepare(self, buffers: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind the graph to checked buffers; the returned function runs it on them."""


def open_session(
    backend: str,
    path: Path,
    graph: Graph,
    device: Device,
    *,
    weight_root: Path,
    weights: WeightStore | None = None,
    profile: Profile | None = None,
    options: Mapping[str, Any] | None = None,
) -> Session:
    """Load a graph. `backend` is a file name of `worldrt.engine.backends`; `options` are that backend's own.

    `weights` are the component's, for backends that do not read the graph's own references (`torch`). `profile` holds
    the range of every axis, for backends that build an engine (`tensorrt`, `tensorrt_rtx`).

    Raises `InputError` for an unknown backend, `BackendError` where it is not installed or refuses the graph.
    """
    module = plugin.load("worldrt.engine.backends", backend)
    reason = module.unavailable()
    if reason:
        raise BackendError(f"backend '{backend}': {reason}")
    session: Session = module.open_session(
        path, graph, device, weight_root=weight_root, weights=weights, profile=profile, **(options or {})
    )
    return session
