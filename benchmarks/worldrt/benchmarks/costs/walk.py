"""The work of an ONNX graph, node by node, at given sizes of its axes.

Shapes are those that ONNX infers. It does not follow every computation of a shape, so whatever depends on shapes alone
is computed first and becomes a constant: what is left is inferred in full.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks.costs.work import Work
from worldrt.engine.bundle import Bundle, Component, Graph
from worldrt.engine.errors import BundleError, InputError
from worldrt.engine.tensors import size_bytes

Shapes = dict[str, tuple[int, ...]]
Values = dict[str, np.ndarray[Any, Any]]
SMALL = 4096
"""Values of a tensor that may belong to the computation of a shape."""
SAME_SHAPE = ("GroupNormalization",)
"""Operators whose result has the shape of their first input, which ONNX does not infer."""
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger")


def walk_component(bundle: Bundle, component: Component, axes: Mapping[str, int]) -> dict[str, Work]:
    """The work of each graph of a component, all instances of it together."""
    found = {}
    for name, graph in component.graphs.items():
        instances = component.instances(name)
        one = walk(bundle.path(graph.file), graph, axes)
        found[name] = one * len(instances) + Work(weight_bytes=one.weight_bytes * (len(instances) - 1))
    return found


def walk(path: Path, graph: Graph, axes: Mapping[str, int]) -> Work:
    """Raises `InputError` where `onnx` is not installed, `BundleError` where a shape cannot be inferred."""
    model = _onnx().load(str(path), load_external_data=False)
    try:
        shapes = infer(model, {spec.name: spec.resolve(axes) for spec in graph.inputs} | _weight_shapes(graph))
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{path}: {' '.join(str(error).split())[:300]}") from error
    return count(model, graph, shapes)


def count(model: Any, graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Work:
    """The work of the nodes of a model whose shapes are known."""
    fixed = {initializer.name for initializer in model.graph.initializer} | {weight.name for weight in graph.weights}
    flops = dict.fromkeys(("linear", "attention", "convolution"), 0.0)
    for node in model.graph.node:
        given = [name for name in node.input if name]
        if all(name in fixed for name in given):
            fixed.update(node.output)  # weights, transposed or cast; constants
        elif node.op_type in PRODUCTS:
            depth = shapes[given[0]][-2 if _flag(node, "transA") else -1]
            kind = "linear" if fixed.intersection(given[:2]) else "attention"
            flops[kind] += 2.0 * math.prod(shapes[node.output[0]]) * depth
        elif node.op_type == "Conv":
            taps = math.prod(shapes[given[1]][1:])
            flops["convolution"] += 2.0 * math.prod(shapes[node.output[0]]) * taps
        elif node.op_type == "Attention":
            flops["attention"] += _attention(node, [shapes[name] for name in given[:3]])
    edges = [spec.dtype for spec in (*graph.inputs, *graph.outputs)]
    sizes = [shapes[spec.name] for spec in (*graph.inputs, *graph.outputs)]
    weights = sum(size_bytes(shapes[weight.name], weight.dtype) for weight in graph.weights)
    return Work(
        **flops, weight_bytes=weights, edge_bytes=sum(size_bytes(s, d) for s, d in zip(sizes, edges, strict=True))
    )


def infer(model: Any, inputs: Mapping[str, Sequence[int]]) -> Shapes:
    """The shape of every tensor of a model. Raises `ValueError` where one cannot be known."""
    onnx = _onnx()
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, inputs.get(value.name, ()), strict=False):
            dim.dim_value = size
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    for node in model.graph.node:
        if node.op_type in SAME_SHAPE:
            node.op_type = "Identity"
            del node.attribute[:], node.input[1:]
    values: Values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if _inline(t)}
    before = -1
    while True:
        shapes = _inferred(model)
        if len(values) == before or not any(node.op_type == "Reshape" for node in model.graph.node):
            break
        before = len(values)
        _evaluate(model, shapes, values)
    missing = [n.op_type for n in model.graph.node for name in (*n.input, *n.output) if name and name not in shapes]
    if missing:
        raise ValueError(f"the shapes at {len(missing)} places are not known, the first of a {missing[0]}")
    return shapes


def _inferred(model: Any) -> Shapes:
    inferred = _onnx().shape_inference.infer_shapes(model, data_prop=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return shapes


def _evaluate(model: Any, shapes: Shapes, values: Values) -> None:
    """Compute what shapes alone decide, and put constants in the place of these nodes."""
    onnx, kept = _onnx(), []
    for node in model.graph.node:
        made = _value(node, shapes, values)
        if made is None:
            kept.append(node)
            continue
        values[node.output[0]] = made
        model.graph.initializer.append(onnx.numpy_helper.from_array(made, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _value(node: Any, shapes: Shapes, values: Values) -> np.ndarray[Any, Any] | None:
    if node.op_type == "Shape" and node.input[0] in shapes:
        start, end = (next((a.i for a in node.attribute if a.name == name), None) for name in ("start", "end"))
        return np.asarray(shapes[node.input[0]][start or 0 : end], np.int64)
    given = [values.get(name) for name in node.input if name]
    if len(node.output) != 1 or any(value is None for value in given) or not (given or node.op_type == "Constant"):
        return None
    if node.op_type == "Constant" and not any(a.name.startswith("value") for a in node.attribute):
        return None
    run: Callable[..., Any] = _onnx().reference.ReferenceEvaluator(node).run
    (made,) = run(None, dict(zip((name for name in node.input if name), given, strict=True)))
    array = np.asarray(made)
    is_whole = array.dtype in (np.int64, np.int32, np.bool_)
    return array if array.size <= (SMALL if is_whole else 1) else None  # a Range may run between float32 numbers


def _attention(node: Any, shapes: Sequence[tuple[int, ...]]) -> float:
    """FLOPs of the operator Attention on Q, K and V (B, H, L, E) or (B, L, H E)."""
    query, key, value = shapes
    if len(query) == 3:
        heads, kv_heads = (next(a.i for a in node.attribute if a.name == f"{n}_num_heads") for n in ("q", "kv"))
        query, key, value = (
            (s[0], n, s[1], s[2] // n) for s, n in zip(shapes, (heads, kv_heads, kv_heads), strict=True)
        )
    return 2.0 * query[0] * query[1] * query[2] * key[2] * (query[3] + value[3])


def _weight_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    return {weight.name: tuple(int(size) for size in weight.shape) for weight in graph.weights}


def _flag(node: Any, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _inline(tensor: Any) -> bool:
    return not tensor.external_data and math.prod(tensor.dims) <= SMALL


def _onnx() -> Any:
    try:
        onnx = importlib.import_module("onnx")
        for name in ("shape_inference", "reference", "numpy_helper"):
            importlib.import_module(f"onnx.{name}")
    except ImportError as error:
        raise InputError("the work of a bundle's graphs: needs onnx; pip install 'worldrt[export]'") from error
    return onnx
