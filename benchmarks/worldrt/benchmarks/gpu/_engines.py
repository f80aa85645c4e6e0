"""A block of a model on an engine, with its weights as inputs and as constants, in its true shape and random values."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks import checkpoints
from worldrt.benchmarks.gpu.base import Setup
from worldrt.benchmarks.processes import run_cli
from worldrt.engine import plugin
from worldrt.engine.bundle import Bundle, Denoiser, Graph, load_bundle
from worldrt.engine.constants import constants_of, with_constants
from worldrt.engine.device import Buffer, Device, open_device
from worldrt.engine.plans import Constant, Range
from worldrt.engine.session import Session, open_session
from worldrt.engine.tensors import axis_names
from worldrt.engine.weights import WeightStore, open_weights, weight_key
from worldrt.runtime.probes import to_bits

TASK = "video2world"
ENGINES = ("tensorrt", "tensorrt_rtx", "onnxruntime")
Call = Callable[[], object]


def backends(setup: Setup) -> list[str]:
    """The engines that run on the device here."""
    found = [name for name in ENGINES if plugin.load("worldrt.engine.backends", name).unavailable() is None]
    if setup.dry:
        return [name for name in found if name == "onnxruntime"]
    if "onnxruntime" in found:
        providers = importlib.import_module("onnxruntime").get_available_providers()
        found = [name for name in found if name != "onnxruntime" or "CUDAExecutionProvider" in providers]
    return found


def calls(setup: Setup, where: str, size: str, shape: tuple[int, int, int]) -> dict[str, Call]:
    """One block over `shape` (latents, rows and columns of tokens) by name of the way its weights are given."""
    bundle = block_bundle(size, setup.scratch)
    spec = bundle.manifest.denoisers[TASK]
    store, device = open_weights(bundle, spec), open_device(setup.device)
    axes = axes_of(shape)
    inputs = _open(where, bundle, spec, store, device, axes, as_constants=False)
    constants = _open(where, bundle, spec, store, device, axes, as_constants=True)
    weights = {name: on_device(device, buffer) for name, buffer in store.of_graph(spec.graphs["block"]).items()}
    return {"constants": _bound(constants, axes, {}, device), "inputs": _bound(inputs, axes, weights, device)}


def axes_of(shape: tuple[int, int, int]) -> dict[str, int]:
    """The axes of a block graph over so many latents, rows and columns of tokens."""
    frames, rows, columns = shape
    sizes = {"batch": 1, "frames": frames, "context_frames": frames, "rows": rows, "columns": columns}
    return sizes | {"tokens": rows * columns, "text": 512}


def block_bundle(size: str, scratch: Path) -> Bundle:
    """The video model of that size in block form. Only the weights of one block instance have values; all others are
    zero, and are not used here."""
    folder, root = scratch / f"{size}-block", scratch / f"{size}-checkpoint"
    if not folder.exists():
        checkpoints.make(size, root, TASK)
        arguments = ["--model", size, "--task", TASK, "--components", TASK, "--checkpoint", str(root)]
        run_cli("export", [*arguments, "--form", "block", "--no-verify", "--no-torch_program", "--output", str(folder)])
        bundle = load_bundle(folder, root)
        spec = bundle.manifest.denoisers[TASK]
        keys = {weight_key(weight) for weight in spec.graphs["block"].weights}
        checkpoints.randomise(open_weights(bundle, spec), keys)
    return load_bundle(folder, root)


def _open(
    where: str,
    bundle: Bundle,
    spec: Denoiser,
    store: WeightStore,
    device: Device,
    axes: Mapping[str, int],
    *,
    as_constants: bool,
) -> Session:
    graph = spec.graphs["block"]
    path, options = bundle.path(graph.file), dict[str, Any]()
    constants = constants_of(graph, store) if as_constants else ()
    if where == "onnxruntime" and as_constants:
        path, graph = _constant_file(path, graph, constants)
    elif where != "onnxruntime":
        options = {"precision": spec.precision, "constants": constants, "block": 0 if as_constants else None}
    profile = {axis: Range(axes[axis], axes[axis], axes[axis]) for axis in axis_names(graph.inputs)}
    return open_session(
        where, path, graph, device, weight_root=bundle.weight_root, weights=store, profile=profile, options=options
    )


def _constant_file(path: Path, graph: Graph, constants: tuple[Constant, ...]) -> tuple[Path, Graph]:
    """For ONNX Runtime an initializer is constant where no input has its name."""
    onnx = importlib.import_module("onnx")
    model = onnx.load_from_string(with_constants(path.read_bytes(), constants))
    names = {constant.name for constant in constants}
    kept = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    place = path.with_name("block_constants.onnx")
    place.write_bytes(model.SerializeToString())
    return place, replace(graph, weights=(), weights_as="external")


def _bound(session: Session, axes: Mapping[str, int], weights: Mapping[str, Buffer], device: Device) -> Call:
    """The run of a call whose inputs hold random values; on a GPU, in the order of torch's current stream."""
    call = session.bind(axes, weights)
    generator = np.random.default_rng(1)
    for spec in session.graph.inputs:
        values = generator.standard_normal(call[spec.name].shape, np.float32)
        device.upload(call[spec.name], to_bits(values, spec.dtype))
    stream = getattr(device, "stream", None)
    if stream is None:
        return lambda: call.run()  # the call keeps its buffers alive, its function does not
    torch = importlib.import_module("torch")
    own = torch.cuda.ExternalStream(stream)

    def run() -> None:
        own.wait_stream(torch.cuda.current_stream())
        call.run()
        torch.cuda.current_stream().wait_stream(own)

    return run


def on_device(device: Device, buffer: Buffer) -> Buffer:
    """A weight where the engine runs: the mapped file itself on the host."""
    if device.name == "cpu":
        return buffer
    target = device.empty(buffer.shape, buffer.dtype)
    device.upload(target, buffer.numpy())
    return target
