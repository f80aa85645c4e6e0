"""From a module to an ONNX graph with named axes. No weight is read: modules are traced on the meta device."""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import onnx_ir as ir
import torch
import torch._dynamo
from torch.export import Dim, ExportedProgram

from worldrt.engine.tensors import TensorSpec, axis_names, split_axis
from worldrt.export.graphs import GraphSource
from worldrt.export.passes import interface, light

OPSET = 23
NEXT = "next_"
"""Before the name of an output that replaces an input."""
# An axis of size 0 or 1 would be taken as fixed, equal sizes as one axis.
_EXAMPLE_SIZES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
# The tokens of a frame are its patches, wherever a graph has all three axes.
_PRODUCTS = {"tokens": ("rows", "columns")}


def export_onnx(source: GraphSource) -> ir.Model:
    """Trace a module into an ONNX graph whose inputs are those of the source and then its weights, by parameter name.

    `worldrt.export.weights` puts the checkpoint's tensors in the place of the weight inputs, or types them.
    """
    return to_onnx(trace(source), source)


def distinct(source: GraphSource) -> GraphSource:
    """A graph cannot give an output the name of an input: such outputs get `next_` before it."""
    taken = {spec.name for spec in source.inputs}
    outputs = (replace(spec, name=NEXT + spec.name) if spec.name in taken else spec for spec in source.outputs)
    return replace(source, outputs=tuple(outputs))


def trace(source: GraphSource) -> ExportedProgram:
    """A torch program of the module with all its axes dynamic."""
    sizes = example_axes(source.inputs)
    examples = tuple(
        torch.empty(spec.resolve(sizes), dtype=getattr(torch, spec.dtype), device="meta") for spec in source.inputs
    )
    dims = {name: Dim(name) for name in axis_names(source.inputs)}
    bound = inspect.signature(source.module.forward).bind(*source.inputs).arguments
    shapes = {name: _dynamic(value, dims) for name, value in bound.items()}
    with _tracing():
        return torch.export.export(source.module.eval(), examples, dynamic_shapes=shapes, strict=False)


def to_onnx(program: ExportedProgram, source: GraphSource) -> ir.Model:
    """A traced program as an ONNX graph; see `export_onnx`."""
    with _tracing():
        exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
    assert exported is not None
    model: ir.Model = exported.model
    interface.name_tensors(model, source)
    interface.weights_to_inputs(model, source.weights)
    light(model)
    interface.set_shapes(model, source)
    model.graph.name = source.name
    return model


def example_axes(specs: Sequence[TensorSpec]) -> dict[str, int]:
    """A size of at least 2 for every axis, all different."""
    names = [name for name in axis_names(specs) if name not in _PRODUCTS]
    sizes = dict(zip(names, _EXAMPLE_SIZES, strict=False))
    if len(sizes) < len(names):
        raise ValueError(f"more axes than example sizes: {names}")
    return complete_axes(specs, sizes)


def complete_axes(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> dict[str, int]:
    """Adds the axes that follow from others (`tokens` from `rows` and `columns`, where these are axes too)."""
    missing = [name for name in axis_names(specs) if name not in sizes]
    spare = iter((31, 37, 41, 43))
    return dict(sizes) | {
        name: math.prod(sizes[part] for part in _PRODUCTS[name])
        if all(part in sizes for part in _PRODUCTS[name])
        else next(spare)
        for name in missing
    }


def _dynamic(bound: Any, dims: Mapping[str, Any]) -> Any:
    """The axes of a spec, or of a tuple of specs (a variadic argument), as torch wants them."""
    if isinstance(bound, tuple):
        return tuple(_dynamic(item, dims) for item in bound)
    return {i: _dim(entry, dims) for i, entry in enumerate(bound.shape) if isinstance(entry, str)}


def _dim(entry: str, dims: Mapping[str, Any]) -> Any:
    factor, name = split_axis(entry)
    return dims[name] if factor == 1 else factor * dims[name]


@contextmanager
def _tracing() -> Iterator[None]:
    """Silent, for exporters talk a lot and what goes wrong raises; and without what only costs time.

    That is the cache of fake results, where shapes are symbols, and collecting garbage, where nearly all is kept.
    """
    level, collects = logging.root.manager.disable, gc.isenabled()
    logging.disable(logging.WARNING)
    gc.disable()
    try:
        with warnings.catch_warnings(), torch.no_grad(), _one_registry():
            warnings.simplefilter("ignore")
            with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
                yield
    finally:
        logging.disable(level)
        if collects:
            gc.enable()


@functools.cache
def _shared(make: Callable[..., Any], *args: Any) -> Any:
    return make(*args)


@contextmanager
def _one_registry() -> Iterator[None]:
    """torch.onnx makes its table of operators anew for every graph, a second each time; here all graphs share one.

    It offers no argument for that, so its maker is replaced for the time of a trace, where it is found at all.
    """
    try:
        registry: Any = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
        make = registry.from_torchlib
    except (ImportError, AttributeError):
        yield
        return
    before = vars(registry)["from_torchlib"]
    registry.from_torchlib = staticmethod(lambda *args, **kwargs: _shared(make, *args, *kwargs.values()))
    try:
        yield
    finally:
        registry.from_torchlib = before
