"""Scales of a block graph: one graph serves all blocks, so that they are weights of each instance, in a file of the
bundle."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import onnx_ir as ir
import torch

from worldrt.engine.bundle import Denoiser, Weight, file_sha256
from worldrt.engine.errors import InputError
from worldrt.engine.weights import SCALE, WeightStore, weight_key
from worldrt.export.convert import write
from worldrt.export.quantize.calibrate import weight_amax
from worldrt.export.quantize.scheme import Array, Scheme
from worldrt.export.quantize.static import chosen, insert

_DTYPES = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}


@dataclass
class InstanceScales:
    """Scales as weight inputs of a block graph, and their values by key: `scale.{i}.NAME`."""

    weights: list[Weight] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)

    def put(self, graph: ir.Graph, name: str, array: Array) -> ir.Value:
        """An input of a graph for scales (instances, ...)."""
        dtype = ir.DataType.from_numpy(array.dtype)
        value = ir.Value(name=name, shape=ir.Shape(array.shape[1:]), type=ir.TensorType(dtype))
        graph.inputs.append(value)
        weight = Weight(name, f"{SCALE}{{i}}.{name}", _DTYPES[dtype], array.shape[1:])
        self.weights.append(weight)
        self.values |= {weight_key(weight, i): row for i, row in enumerate(array)}
        return value

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        with path.open("wb") as file:
            write(file, {key: _tensor(array) for key, array in self.values.items()}, {})


def _tensor(array: Array) -> torch.Tensor:
    array = np.array(array)  # one number is no longer an array, and a row is no longer aligned
    if array.dtype.kind == "f":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)  # numpy has no bfloat16 of its own


def quantize_blocks(
    folder: Path,
    entry: Denoiser,
    scheme: Scheme,
    keep: re.Pattern[str] | None,
    amax: Mapping[str, Array],
    store: WeightStore,
) -> tuple[Denoiser, dict[str, str]]:
    """Quantise the block graph of a denoiser in `folder`, in place; `embed` and `head` stay as they are.

    Gives its entry, and the file of scales with its hash. `amax` as of `chain.block_ranges`. Raises `InputError` where
    no layer is left.
    """
    graph = entry.graphs["block"]
    path = folder / graph.file
    model = ir.load(path)
    layers = chosen(model.graph, graph.weights, keep)
    if not layers:
        raise InputError(f"{graph.file}: no layer is left to quantise, see --quantize_keep")
    made = InstanceScales()
    insert(model.graph, layers, scheme, amax, _stacked(entry, store), made.put)
    ir.save(model, path)
    scales = (PurePosixPath(graph.file).parent / "scales.safetensors").as_posix()
    made.save(folder / scales)
    block = replace(graph, sha256=file_sha256(path), weights=(*graph.weights, *made.weights))
    graphs = {**entry.graphs, "block": block}
    return replace(entry, graphs=graphs, scales=scales), {scales: file_sha256(folder / scales)}


def _stacked(entry: Denoiser, store: WeightStore) -> Callable[[str, int | None], Array]:
    """The largest magnitudes in the weights of all instances, by the name of the input."""
    weights = {weight.name: weight for weight in entry.graphs["block"].weights}

    def found(name: str, block: int | None) -> Array:
        keys = [weight_key(weights[name], i) for i in range(entry.blocks - 1)]
        return np.stack([weight_amax(store, key, block) for key in keys])

    return found
