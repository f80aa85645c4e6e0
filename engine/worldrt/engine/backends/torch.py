"""PyTorch: runs the torch program that was saved beside a graph, eager or compiled. The reference and the baseline."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Graph
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError
from worldrt.engine.plans import Profile
from worldrt.engine.session import Session
from worldrt.engine.weights import WeightStore


def unavailable() -> str | None:
    try:
        importlib.import_module("torch")
    except ImportError as error:
        return f"torch cannot be imported ({error}); pip install 'worldrt[export]'"
    return None


def open_session(
    path: Path,
    graph: Graph,
    device: Device,
    *,
    weight_root: Path,
    weights: WeightStore | None = None,
    profile: Profile | None = None,
    threads: int = 0,
    compile: bool = False,
) -> Session:
    """`threads`: 0 leaves the number to torch. `compile` has torch.compile optimise the program, at its first run."""
    torch = importlib.import_module("torch")
    if graph.program is None:
        raise BackendError(f"{path}: the bundle holds no torch program of this graph; export with --torch_program")
    if threads:
        torch.set_num_threads(threads)
    place = path.parents[len(Path(graph.file).parts) - 1] / graph.program
    try:
        with warnings.catch_warnings(), _order(torch, device):
            warnings.simplefilter("ignore")
            program = torch.export.load(place)
            if device.name != "cpu":
                program = importlib.import_module("torch.export.passes").move_to_device_pass(program, device.name)
            module = program.module(check_guards=False)
    except Exception as error:
        raise BackendError(f"{place}: cannot be loaded by torch {torch.__version__}: {error}") from error
    types = {name: value.dtype for name, value in program.state_dict.items()}
    if graph.weights_as == "external":
        if weights is None:
            raise BackendError(f"{path}: the torch backend needs the weights of the component")
        buffers = {weight.name: weights[weight.key] for weight in graph.weights}
        with _order(torch, device):
            module.load_state_dict(_state(torch, types, buffers, device), assign=True, strict=False)
    return TorchSession(graph, device, torch, torch.compile(module) if compile else module, types)


class TorchSession(Session):
    """A program as a module. Its results are copied into the bound buffers."""

    def __init__(self, graph: Graph, device: Device, torch: Any, module: Any, types: Mapping[str, Any]) -> None:
        super().__init__(graph, device)
        self._torch, self._module, self._types = torch, module, types

    def _prepare(self, buffers: Mapping[str, Buffer]) -> Callable[[], None]:
        torch, module = self._torch, self._module
        inputs = tuple(_tensor(torch, buffers[spec.name]) for spec in self.graph.inputs)
        outputs = tuple(_tensor(torch, buffers[spec.name]) for spec in self.graph.outputs)
        bound = {spec.name: buffers[spec.name] for spec in self._weight_specs}
        with _order(torch, self.device):  # after the uploads, which are on the device's stream
            state = _state(torch, self._types, bound, self.device) if bound else None

        def run() -> None:
            with torch.no_grad(), _order(torch, self.device):
                made = module(*inputs) if state is None else torch.func.functional_call(module, state, inputs)
                for target, value in zip(outputs, made if isinstance(made, (tuple, list)) else (made,), strict=True):
                    target.copy_(value)

        return run


def _order(torch: Any, device: Device) -> AbstractContextManager[Any]:
    """Within it torch gives its work to the device's stream, which does not wait for torch's own."""
    stream = getattr(device, "stream", None)
    if stream is None:
        return nullcontext()
    order: AbstractContextManager[Any] = torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device.name))
    return order


def _state(torch: Any, types: Mapping[str, Any], buffers: Mapping[str, Buffer], device: Device) -> dict[str, Any]:
    """Weights as tensors: views where the stored dtype is the program's, else copies."""
    return {name: _on(_tensor(torch, value), device).to(types[name]) for name, value in buffers.items()}


def _on(tensor: Any, device: Device) -> Any:
    return tensor if device.name == "cpu" else tensor.to(device.name)


def _tensor(torch: Any, buffer: Buffer) -> Any:
    """A tensor over a buffer's memory."""
    if buffer.device != "cpu":
        tensor = torch.as_tensor(_Bits(buffer), device=buffer.device)
        return tensor.view(torch.bfloat16) if buffer.dtype == "bfloat16" else tensor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mapped weights are read-only, and are only read
        tensor = torch.from_numpy(buffer.numpy())
    return tensor.view(torch.bfloat16) if buffer.dtype == "bfloat16" else tensor


class _Bits:
    """A CUDA buffer as torch accepts it: bfloat16 as 16-bit integers."""

    def __init__(self, buffer: Buffer) -> None:
        interface = buffer.__cuda_array_interface__
        self.__cuda_array_interface__ = interface | ({"typestr": "<i2"} if buffer.dtype == "bfloat16" else {})
        self._owner = buffer.owner
