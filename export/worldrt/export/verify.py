"""Every exported graph against the torch module that it was traced from, on random inputs and the real weights."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from worldrt.engine.bundle import Bundle, Graph
from worldrt.engine.compare import Difference, difference
from worldrt.engine.device import Buffer, HostDevice
from worldrt.engine.session import open_session
from worldrt.engine.tensors import TensorSpec, axis_names, solve_axes
from worldrt.engine.weights import WeightStore, numbered
from worldrt.export.graphs import GraphSource
from worldrt.export.passes.shadow import shadow, widened
from worldrt.export.trace import complete_axes

# Not the sizes of the trace; a batch of one shows axes that were taken as fixed.
AXES = {
    "batch": 1,
    "frames": 2,
    "context_frames": 3,
    "window_frames": 4,
    "rows": 3,
    "columns": 2,
    "text": 6,
    "heads": 5,
} | {
    "views": 2,
    "context_views": 4,
}
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
ROUNDED_TOLERANCE = 3e-2
IDS = 100
"""Token ids below this number exist in every vocabulary."""


@dataclass(frozen=True)
class Row:
    """One output of one graph. `tolerance` bounds the relative difference."""

    graph: str
    difference: Difference
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.difference.within(self.tolerance)


def verify_graph(
    bundle: Bundle,
    graph: Graph,
    source: GraphSource,
    store: WeightStore,
    axes: Mapping[str, int] = AXES,
    *,
    keep_rounding: bool = False,
    instance: int = 0,
) -> list[Row]:
    """Run a graph by ONNX Runtime and its module by torch, in float32, and compare all outputs. `instance` is a number
    of a block that the graph is used for.

    bfloat16 graphs run as their float32 shadow (`passes.shadow`) on the bfloat16 weights; float16 ones as they are.
    """
    known = {name: axes[name] for name in axis_names(source.inputs) if name in axes}
    inputs = random_inputs(source.inputs, complete_axes(source.inputs, known))
    loaded = store.of_graph(graph, instance)
    folded = {n: store[numbered(key, instance)] for n, key in source.weights.items()} if source.fold else {}
    reference = run_module(source, inputs, folded | loaded)
    with tempfile.TemporaryDirectory() as folder:
        path = bundle.path(graph.file)
        if any(spec.dtype == "bfloat16" for spec in (*graph.inputs, *graph.outputs)) or _computes_in_bfloat16(path):
            graph, path = _shadow(graph, path, Path(folder), keep_rounding)
        actual = run_graph(graph, path, inputs, loaded, bundle.weight_root)
    tolerance = TOLERANCE["float16"] if _is_half(source) else TOLERANCE["float32"]
    return [_row(graph, name, actual[name], value, tolerance) for name, value in reference.items()]


def random_inputs(specs: Sequence[TensorSpec], axes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    """float32 and integer arrays by input name; always the same ones."""
    random = np.random.default_rng(0)
    return {spec.name: _random(spec, spec.resolve(axes), random) for spec in specs}


def _random(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec.name == "level":
        return np.exp(random.standard_normal(shape)).astype(np.float32)
    if spec.name == "row":
        return np.array([[1 + i, 3 + i] for i in range(shape[0])], np.float32)
    if spec.name in ("position", "view"):
        return np.arange(shape[0], dtype=np.float32)
    if spec.name == "mask":
        return np.broadcast_to(np.arange(shape[1]) % 2 == 0, shape).astype(np.float32)
    if spec.dtype.startswith(("int", "uint")):
        return random.integers(0, IDS, shape).astype(spec.dtype)
    return random.standard_normal(shape, np.float32)


def run_module(
    source: GraphSource, inputs: Mapping[str, np.ndarray[Any, Any]], weights: Mapping[str, Buffer]
) -> dict[str, np.ndarray[Any, Any]]:
    """The module's outputs in float32, by name."""
    state = {name: as_tensor(buffer).float() for name, buffer in weights.items()}
    with torch.no_grad():
        made = torch.func.functional_call(source.module, state, tuple(map(torch.from_numpy, inputs.values())))
    outputs = (made,) if isinstance(made, Tensor) else made
    return {spec.name: value.numpy() for spec, value in zip(source.outputs, outputs, strict=True)}


def as_tensor(buffer: Buffer) -> Tensor:
    """A tensor over a host buffer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mapped weights are read-only, and are only read
        tensor = torch.from_numpy(buffer.numpy())
    return tensor.view(torch.bfloat16) if buffer.dtype == "bfloat16" else tensor


def run_graph(
    graph: Graph,
    path: Path,
    inputs: Mapping[str, np.ndarray[Any, Any]],
    weights: Mapping[str, Buffer],
    weight_root: Path,
) -> dict[str, np.ndarray[Any, Any]]:
    """The graph's outputs by ONNX Runtime, by name."""
    device = HostDevice()
    session = open_session("onnxruntime", path, graph, device, weight_root=weight_root)
    given = dict(weights) if graph.weights_as == "inputs" else {}
    for spec in graph.inputs:
        given[spec.name] = device.empty(inputs[spec.name].shape, spec.dtype)
        given[spec.name].numpy()[...] = inputs[spec.name]
    call = session.bind(_all_axes(graph, inputs), given)
    call.run()
    return {spec.name: call[spec.name].numpy() for spec in graph.outputs}


def _all_axes(graph: Graph, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, int]:
    """Those of the inputs, and axes that only outputs have."""
    known = solve_axes(graph.inputs, {name: array.shape for name, array in inputs.items()})
    return complete_axes([*graph.inputs, *graph.outputs], known)


def _is_half(source: GraphSource) -> bool:
    return any(parameter.dtype == torch.float16 for parameter in source.module.parameters())


def _computes_in_bfloat16(path: Path) -> bool:
    model = ir.load(path)
    return any(value.dtype == ir.DataType.BFLOAT16 for node in model.graph for value in node.outputs)


def _shadow(graph: Graph, path: Path, folder: Path, keep_rounding: bool) -> tuple[Graph, Path]:
    model = ir.load(path)
    shadow(model, {weight.name for weight in graph.weights}, keep_rounding=keep_rounding)
    ir.save(model, folder / path.name)

    return replace(graph, inputs=widened(graph.inputs), outputs=widened(graph.outputs)), folder / path.name


def _row(
    graph: Graph, name: str, actual: np.ndarray[Any, Any], reference: np.ndarray[Any, Any], tolerance: float
) -> Row:
    if actual.dtype == np.uint8:
        tolerance = 1.01 / 255 / max(float(reference.max()) / 255, 1e-9)  # one step of 8 bits
    return Row(graph.file.removesuffix(".onnx"), difference(name, actual, reference), tolerance)


def print_table(rows: Sequence[Row], console: Console) -> None:
    """The worst output of each graph."""
    table = Table(title="ONNX against torch, worst output of each graph")
    for heading in ("graph", "output", "max abs", "relative", "cosine", ""):
        table.add_column(heading, justify="left" if heading in ("graph", "output", "") else "right")
    for graph in dict.fromkeys(row.graph for row in rows):
        worst = max(
            (row for row in rows if row.graph == graph), key=lambda row: row.difference.relative / row.tolerance
        )
        d = worst.difference
        verdict = "[green]same[/]" if worst.passed else "[red]DIFFERENT[/]"
        table.add_row(graph, d.name, f"{d.max_abs:.2e}", f"{d.relative:.2e}", f"{d.cosine:.8f}", verdict)
    console.print(table)
