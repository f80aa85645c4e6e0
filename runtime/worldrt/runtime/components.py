"""Opening the graphs of a bundle: one place that knows backend, device and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from worldrt.engine.bundle import Bundle, Component, Denoiser, Graph
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import Buffer, Device, open_device
from worldrt.engine.errors import BundleError
from worldrt.engine.graphs import Mode
from worldrt.engine.overlay import WeightChange, open_changed
from worldrt.engine.plans import Gather
from worldrt.engine.session import Session, open_session
from worldrt.engine.tensors import SymbolicShape, TensorSpec
from worldrt.engine.weights import WeightStore, open_weights
from worldrt.runtime.engines import BACKENDS, Engines
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.share import CONTEXT
from worldrt.runtime.record import Recording


@dataclass(frozen=True)
class Execution:
    """Where and how graphs run. `options` are the backend's own (`threads` of onnxruntime, `latency_s` of null).

    `guidance`: `batched` evaluates the conditional and unconditional text in one call of batch 2, `sequential` in two
    calls, which needs less memory. `offload_text` lets the text encoder go once the prompts of a run are encoded;
    `offload` lets every model go once its part of a run is done. `gpu_memory_gb` limits what is held on the GPU:
    weights that do not fit are streamed from the host. `cuda_graphs` as of `worldrt.engine.graphs`. `record` writes
    the denoisers' inputs and the frames into a folder. `clips` is how many clips engines can make in a call. `ranks`
    are the processes that share the work.
    """

    backend: str = "onnxruntime"
    device: str = "cpu"
    guidance: str = "batched"
    offload_text: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    record: Recording | None = None
    offload: bool = False
    gpu_memory_gb: float | None = None
    cuda_graphs: Mode = "auto"
    engines: Engines = field(default_factory=Engines)
    clips: int = 1
    ranks: Ranks | None = None

    @cached_property
    def opened_device(self) -> Device:
        """The device itself, opened once."""
        device = open_device(self.device)
        if self.gpu_memory_gb is not None and isinstance(device, CudaDevice):
            device.limit_bytes = int(self.gpu_memory_gb * 1e9)
        return device


@dataclass(frozen=True)
class Opener:
    """Opens the graphs of one bundle. `changes` are other weights for its denoisers, by task."""

    bundle: Bundle
    execution: Execution
    changes: Mapping[str, WeightChange] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        return self.execution.opened_device

    def session(
        self,
        component: Component,
        name: str,
        weights: WeightStore,
        block: int = 0,
        gathered: tuple[Gather, int] | None = None,
    ) -> Session:
        """Load a graph of a component with these weights; where they are constants of an engine, with those of instance
        `block`. `gathered` are outputs that engines gather themselves, and the address of the communicator for that.
        Raises `BundleError` where there is none of that name."""
        graph = component.graphs.get(name)
        if graph is None:
            raise BundleError(f"{self.bundle.folder}: a graph '{name}' is missing; there are {list(component.graphs)}")
        profile, options = None, dict(self.execution.options)
        if gathered is not None:
            options |= dict(zip(("gather", "communicator"), gathered, strict=True))
            graph = _as_gathered(graph, gathered[0])
        if self.execution.backend in BACKENDS:
            branches = 2 if self.execution.guidance == "batched" else 1
            batch = branches * self.execution.clips if isinstance(component, Denoiser) else 1
            fixed = None if self.takes_weights(component, weights) else block
            profile, more = self.execution.engines.options(
                self.bundle,
                component,
                name,
                weights,
                batch=batch,
                block=fixed,
                limit_bytes=getattr(self.device, "limit_bytes", None),
                ranks=self.execution.ranks.size if self.execution.ranks else 1,
            )
            options |= more
        return open_session(
            self.execution.backend,
            self.bundle.path(graph.file),
            graph,
            self.device,
            weight_root=self.bundle.weight_root,
            weights=weights,
            profile=profile,
            options=options,
        )

    def takes_weights(self, component: Component, store: WeightStore) -> bool:
        """Whether one session serves all instances of a block graph, the weights being inputs of it."""
        return self.execution.backend not in BACKENDS or self.execution.engines.takes_weights(component, store)

    def weights(self, component: Component) -> WeightStore:
        """The checked weights of a component, with what a run changes of them."""
        for task, denoiser in self.bundle.manifest.denoisers.items():
            if denoiser is component and task in self.changes:
                return open_changed(self.bundle, denoiser, self.changes[task])
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


def _as_gathered(graph: Graph, gather: Gather) -> Graph:
    """With outputs that hold what all GPUs have made."""

    def shape(spec: TensorSpec) -> SymbolicShape:
        return (CONTEXT, *spec.shape[1:]) if spec.name in gather.outputs else spec.shape

    return replace(graph, outputs=tuple(replace(spec, shape=shape(spec)) for spec in graph.outputs))


def _uploaded(device: Device, buffer: Buffer) -> Buffer:
    target = device.empty(buffer.shape, buffer.dtype)
    device.upload(target, buffer.numpy())
    return target
