"""What the backends `tensorrt` and `tensorrt_rtx` share: sessions over engines, on one CUDA stream.

An engine has one execution context for each set of input shapes. Contexts have no memory of their own: they use the
device's scratch in turn. Calls of the same shapes share a context, and tell it their addresses when another call used
it in between, so that one engine serves all blocks of a transformer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldrt.engine.backends._library import load_library, plan_target
from worldrt.engine.backends._trt_contexts import Contexts
from worldrt.engine.backends._trt_load import Engine, load_engine
from worldrt.engine.bundle import Graph
from worldrt.engine.cache import PlanCache
from worldrt.engine.collectives import connect
from worldrt.engine.cuda import Claim, CudaDevice
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError, DeviceMemoryError, ShapeError
from worldrt.engine.plans import BuildJob, BuildOptions, Constant, Gather, Library, Profile
from worldrt.engine.session import Session
from worldrt.engine.tensors import Shape, solve_axes
from worldrt.engine.weights import WeightStore

KEPT_CONTEXTS = 4
Shapes = tuple[tuple[str, Shape], ...]


def unavailable(library: Library) -> str | None:
    try:
        load_library(library)
    except BackendError as error:
        return str(error)
    return None


def open_session(
    library: Library,
    contexts: Callable[[Engine], Contexts],
    path: Path,
    graph: Graph,
    device: Device,
    *,
    weight_root: Path,
    weights: WeightStore | None = None,
    profile: Profile | None = None,
    precision: str = "float32",
    cache: PlanCache | None = None,
    build: BuildOptions | None = None,
    constants: tuple[Constant, ...] = (),
    block: int | None = None,
    progress: Callable[[str, float], None] | None = None,
    gather: Gather | None = None,
    communicator: int | None = None,
) -> Session:
    """A session over the plan of a graph, built now where the cache holds none.

    `constants` take the place of the weight inputs of instance `block`. `progress` hears of a build. `gather` are
    outputs that the engine gathers itself, over the NCCL communicator at an address; `graph` describes them as
    gathered. Raises `BackendError` without a GPU, and what `worldrt.engine.build.build_plan` and the cache raise.
    """
    trt = load_library(library)
    if not isinstance(device, CudaDevice):
        raise BackendError(
            f"backend '{library}': it runs on an NVIDIA GPU, got device '{device.name}'; use --device cuda"
        )
    options = build or BuildOptions()
    gpu = plan_target(library, trt, device.target)
    job = BuildJob(library, graph, path, weight_root, precision, profile or {}, gpu, options, constants, block, gather)
    engine = load_engine(trt, job, device, cache or PlanCache(), weights, progress)
    seen = replace(graph, weights=(), weights_as="external") if constants else graph
    return TrtSession(seen, device, engine, contexts(engine), job, communicator)


@dataclass
class _Context:
    """An execution context for one set of shapes, and what it was last told. `need` is its scratch in bytes."""

    trt: Any
    need: int
    owner: object = None
    generation: int = -1
    ran: bool = False


class TrtSession(Session):
    """An engine on a GPU. Runs are enqueued on the device's stream."""

    def __init__(
        self,
        graph: Graph,
        device: CudaDevice,
        engine: Engine,
        contexts: Contexts,
        job: BuildJob,
        communicator: int | None = None,
    ) -> None:
        super().__init__(graph, device)
        self.gpu, self.job, self.contexts, self._communicator = device, job, contexts, communicator
        self._engine = engine
        self._ready: OrderedDict[Shapes, _Context] = OrderedDict()
        self._streamed: Claim | None = None  # the part of streamed weights that stays on the device
        self._streams = job.options.weight_streaming and engine.engine.streamable_weights_size > 0

    @property
    def capture_refusal(self) -> str | None:
        if self._streams:
            return "weights are streamed from the host, which waits in every run"
        return self.contexts.refusal((context.trt for context in self._ready.values()), self.gpu.stream)

    @property
    def capture_key(self) -> Hashable:
        return self.gpu.scratch.generation

    def _prepare(self, buffers: Mapping[str, Buffer]) -> Callable[[], None]:
        inputs = (*self.graph.inputs, *self._weight_specs)
        self._check_ranges(buffers)
        context = self._context(tuple((spec.name, buffers[spec.name].shape) for spec in inputs))
        return _Bound(self, context, buffers)

    def _check_ranges(self, buffers: Mapping[str, Buffer]) -> None:
        specs = (*self.graph.inputs, *self.graph.outputs)
        axes = solve_axes(specs, {name: buffer.shape for name, buffer in buffers.items()})
        ranges = self.job.profile
        outside = [name for name, n in axes.items() if name in ranges and not ranges[name].min <= n <= ranges[name].max]
        if outside:
            told = (f"'{n}': the engine takes {ranges[n].min} to {ranges[n].max}, got {axes[n]}" for n in outside)
            raise ShapeError(
                f"{self.graph.file}: axis {'; axis '.join(told)}. Have another engine built: "
                f"--profile {' '.join(self._wider(name, axes[name]) for name in outside)}"
            )

    def _wider(self, name: str, size: int) -> str:
        """A range that holds a size too, as the flag spells it: of the component whose folder the graph lies in."""
        taken, (component, slash, _) = self.job.profile[name], self.graph.file.partition("/")
        own = f"{component}." if slash else ""
        return f"{own}{name}={min(taken.min, size)}:{size}:{max(taken.max, size)}"

    def _context(self, shapes: Shapes) -> _Context:
        context = self._ready.get(shapes)
        if context is None:
            if self._streams:
                self._share_memory(shapes)
            context = self._ready[shapes] = self._make_context(shapes)
            self.gpu.scratch.reserve(context.need)
            if len(self._ready) > KEPT_CONTEXTS:
                self._ready.popitem(last=False)
        self._ready.move_to_end(shapes)
        return context

    def _make_context(self, shapes: Shapes) -> _Context:
        made = self.contexts.make()
        if made is None:
            raise self._engine.failed(f"{self.job.name}: making an execution context")
        if self._communicator is not None and not connect(made, self._communicator):
            raise self._engine.failed(f"{self.job.name}: giving it the communicator of its GPUs")
        if made.active_optimization_profile != 0:
            made.set_optimization_profile_async(0, self.gpu.stream)
        for name, shape in shapes:
            if not made.set_input_shape(name, shape):
                raise ShapeError(f"{self.graph.file}: the engine does not take '{name}' of shape {list(shape)}")
        if missing := made.infer_shapes():
            raise self._engine.failed(f"{self.job.name}: working out shapes without '{missing[0]}'")
        return _Context(made, max(1, int(made.update_device_memory_size_for_shapes())))

    def _share_memory(self, shapes: Shapes) -> None:
        """Give streamed weights the device memory that scratch leaves. It can only be changed without contexts."""
        engine = self._engine.engine
        self._ready.clear()
        self._streamed = None
        engine.weight_streaming_budget_v2 = 0
        need = self._make_context(shapes).need + int(engine.weight_streaming_scratch_memory_size)
        self.gpu.scratch.reserve(need)
        left, whole = self.gpu.free_bytes(), int(engine.streamable_weights_size)
        if left < 0:
            raise DeviceMemoryError(f"{self.job.name}: no memory is left for weights; give a larger --gpu_memory")
        engine.weight_streaming_budget_v2 = min(left, whole)
        self._streams = int(engine.weight_streaming_budget_v2) < whole
        self._streamed = self.gpu.claim(int(engine.weight_streaming_budget_v2))


class _Bound:
    """A call of a session: addresses for a context that it may share with others."""

    def __init__(self, session: TrtSession, context: _Context, buffers: Mapping[str, Buffer]) -> None:
        self._session, self._context, self._buffers = session, context, dict(buffers)
        self._token = object()

    def __call__(self) -> None:
        context, session = self._context, self._session
        if context.owner is not self._token:
            self._tell_addresses()
        if context.generation != session.gpu.scratch.generation:
            self._tell_scratch()
        if not context.trt.execute_async_v3(session.gpu.stream):
            raise session._engine.failed(f"running {session.job.name}")
        if not context.ran:
            context.ran = True
            session.contexts.ran()

    def _tell_addresses(self) -> None:
        for name, buffer in self._buffers.items():
            if not self._context.trt.set_tensor_address(name, buffer.pointer):
                raise self._session._engine.failed(f"{self._session.job.name}: the address of '{name}'")
        self._context.owner = self._token

    def _tell_scratch(self) -> None:
        scratch = self._session.gpu.scratch
        scratch.reserve(self._context.need)
        self._context.trt.set_device_memory(scratch.pointer, scratch.nbytes)
        self._context.generation = scratch.generation
