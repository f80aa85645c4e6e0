"""Weights by reference: a graph points into the checkpoint's own safetensors files, or takes its weights as inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from worldrt.engine.bundle import Graph, Weight
from worldrt.engine.errors import CheckpointError
from worldrt.engine.safetensors import StoredTensor
from worldrt.engine.weights import WeightStore, weight_key
from worldrt.export.graphs import GraphSource
from worldrt.export.passes.interface import ONNX_TYPES


def stored_weights(source: GraphSource, store: WeightStore, instances: Sequence[int] = (0,)) -> tuple[Weight, ...]:
    """The weights of a module, with dtype and shape as stored.

    Raises `CheckpointError` where a tensor is missing in any instance of the graph, or has another shape than the
    module's parameter, or where instances (numbers of blocks) differ in dtype.
    """
    weights = []
    for name, parameter in source.module.named_parameters():
        first = Weight(name, source.weights[name], "", tuple(parameter.shape))
        first = replace(first, dtype=_stored(store, weight_key(first, instances[0])).dtype)
        for index in instances:
            _check(store, weight_key(first, index), first)
        weights.append(first)
    return tuple(weights)


def used_weights(model: ir.Model, weights: Sequence[Weight]) -> tuple[Weight, ...]:
    """Those that are inputs of the graph, in its order."""
    by_name = {weight.name: weight for weight in weights}
    return tuple(by_name[value.name] for value in model.graph.inputs if value.name in by_name)


def _stored(store: WeightStore, key: str) -> StoredTensor:
    if key not in store.owner:
        raise CheckpointError(f"{store.root}: the checkpoint holds no tensor '{key}'; is it another model?")
    return store.owner[key].tensors[key]


def _check(store: WeightStore, key: str, expected: Weight) -> None:
    stored = _stored(store, key)
    if (stored.dtype, stored.shape) != (expected.dtype, expected.shape):
        raise CheckpointError(
            f"{store.owner[key].path}: tensor '{key}': expected {expected.dtype}{list(expected.shape)}, "
            f"got {stored.dtype}{list(stored.shape)}; is it another model?"
        )


def bind(model: ir.Model, weights: Sequence[Weight], store: WeightStore, weights_as: str) -> None:
    """Give the weight inputs their stored dtype, and with `external` make them references into the files.

    A Cast follows a weight whose stored dtype is not the one that the graph computes in.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    for weight in weights:
        value = inputs[weight.name]
        _store_as(model.graph, value, ir.DataType[ONNX_TYPES[weight.dtype]])
        if weights_as == "external":
            model.graph.inputs.remove(value)
            value.const_value = _reference(weight, store)
            model.graph.register_initializer(value)


def _store_as(graph: ir.Graph, value: ir.Value, stored: ir.DataType) -> None:
    computed = value.dtype
    if computed == stored or computed is None:
        return
    uses = list(value.uses())
    cast = ir.node("Cast", [value], {"to": computed}, name=f"cast.{value.name}")
    result = cast.outputs[0]
    result.name, result.dtype, result.shape = f"{value.name}.cast", computed, value.shape
    for node, index in uses:
        node.replace_input_with(index, result)
    value.type = ir.TensorType(stored)  # a new object: copies of a graph share their types
    graph.insert_before(graph[0], cast)


def _reference(weight: Weight, store: WeightStore) -> ir.ExternalTensor:
    file = store.owner[weight.key]
    place = file.tensors[weight.key]
    return ir.ExternalTensor(
        location=file.path.relative_to(store.root).as_posix(),
        offset=place.offset,
        length=place.nbytes,
        dtype=ir.DataType[ONNX_TYPES[place.dtype]],
        shape=ir.Shape(place.shape),
        name=weight.name,
        base_dir=str(store.root),
    )


def described(model_file: str, sha256: str, source: GraphSource, weights: tuple[Weight, ...], weights_as: str) -> Graph:
    """The entry of a graph in `bundle.json`."""
    kind = "inputs" if weights_as == "inputs" else "external"
    return Graph(model_file, sha256, source.inputs, source.outputs, kind, weights)  # type: ignore[arg-type]


def external_root(checkpoint: Path, files: Sequence[Path]) -> Path:
    """The folder below which all weight files lie, links and what they point to (model hubs link into a store)."""
    places = [checkpoint.absolute(), *(file.absolute() for file in files), *(file.resolve() for file in files)]
    root = places[0]
    for place in places[1:]:
        while not place.is_relative_to(root):
            root = root.parent
    return root
