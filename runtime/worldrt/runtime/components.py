"""Opening the graphs of a bundle: one place that knows backend, device and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from worldrt.engine.bundle import Bundle, Component
from worldrt.engine.device import Buffer, Device, open_device
from worldrt.engine.errors import BundleError
from worldrt.engine.session import Session, open_session
from worldrt.engine.weights import WeightStore, open_weights
from worldrt.runtime.record import Recording


@dataclass(frozen=True)
class Execution:
    """Where and how graphs run. `options` are the backend's own (`threads` of onnxruntime, `latency_s` of null).

    `guidance`: `batched` evaluates the conditional and unconditional text in one call of batch 2, `sequential` in two
    calls, which needs less memory. `offload_text` lets the text encoder go once the prompts of a run are encoded.
    `record` writes the denoisers' inputs and the frames into a folder.
    """

    backend: str = "onnxruntime"
    device: str = "cpu"
    guidance: str = "batched"
    offload_text: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    record: Recording | None = None

    @cached_property
    def opened_device(self) -> Device:
        """The device itself, opened once."""
        return open_device(self.device)


@dataclass(frozen=True)
class Opener:
    """Opens the graphs of one bundle."""

    bundle: Bundle
    execution: Execution

    @property
    def device(self) -> Device:
        return self.execution.opened_device

    def session(self, component: Component, name: str, weights: WeightStore) -> Session:
        """Load a graph of a component with these weights. Raises `BundleError` where there is none of that name."""
        graph = component.graphs.get(name)
        if graph is None:
            raise BundleError(f"{self.bundle.folder}: a graph '{name}' is missing; there are {list(component.graphs)}")
        return open_session(
            self.execution.backend,
            self.bundle.path(graph.file),
            graph,
            self.device,
            weight_root=self.bundle.weight_root,
            weights=weights,
            options=self.execution.options,
        )

    def weights(self, component: Component) -> WeightStore:
        """The checked weight files of a component."""
        return open_weights(self.bundle, component)

    def on_device(self, weights: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Weight buffers on the device: on the host the mapped file itself, else copies."""
        if self.device.name == "cpu":
            return dict(weights)
        return {name: _uploaded(self.device, buffer) for name, buffer in weights.items()}

    def graph(self, component: Component, name: str) -> tuple[Session, dict[str, Buffer]]:
        """A session and its weight inputs; the weights of the component are checked either way."""
        store = self.weights(component)
        session = self.session(component, name, store)
        as_inputs = session.graph.weights_as == "inputs"
        return session, self.on_device(store.of_graph(session.graph)) if as_inputs else {}


def _uploaded(device: Device, buffer: Buffer) -> Buffer:
    target = device.empty(buffer.shape, buffer.dtype)
    device.upload(target, buffer.numpy())
    return target
