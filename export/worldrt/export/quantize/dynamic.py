"""Dynamic int8 for ONNX Runtime on a CPU: weights int8 per output channel, activations uint8 per tensor at run time.

A quantised weight is a number of the bundle's own: it lies in the .onnx file, no longer in the checkpoint. The scheme
is that of Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference
(CVPR 2018), with symmetric weights.

Weights use 7 of the 8 bits. Without VNNI, x86 adds products of uint8 and int8 in pairs in 16 bits, and 255 * 127 * 2
does not fit there: sums would saturate, silently, on some machines only.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import (
    Denoiser,
    Graph,
    Manifest,
    Weight,
    file_sha256,
    load_bundle,
    write_manifest,
)
from worldrt.engine.errors import InputError
from worldrt.engine.files import staged_folder
from worldrt.export.quantize.find import Linear, linears
from worldrt.export.quantize.static import KEPT, constant

LIMIT = 63
"""The largest quantised weight."""
MAX_BYTES = 2**31 - 2**26
"""What an .onnx file can hold (protobuf: 2 GiB), with some room for the graph."""
Array = np.ndarray[Any, Any]


def quantize_manifest(manifest: Manifest, folder: Path, root: Path) -> Manifest:
    """Quantise the denoisers of a bundle in `folder`, in place; their weights are read below `root`.

    Saved torch programs of them are removed. Raises `InputError` for a denoiser in block form, one that does not
    compute in float32, or one that is too large.
    """
    denoisers = {name: _denoiser(entry, folder, root) for name, entry in manifest.denoisers.items()}
    removed = {graph.program for entry in manifest.denoisers.values() for graph in entry.graphs.values()}
    files = {name: sha256 for name, sha256 in manifest.files.items() if name not in removed}
    return replace(manifest, denoisers=denoisers, files=files)


def quantize_bundle(source: Path, output: Path, *, checkpoint: Path | None = None, overwrite: bool = False) -> None:
    """Write a bundle of the same checkpoint whose denoisers are quantised; those have no torch programs.

    Raises `BundleError`, `InputError`, `OutputError`.
    """
    bundle = load_bundle(source, checkpoint)
    manifest, root = bundle.manifest, bundle.weight_root.absolute()
    with staged_folder(output, overwrite=overwrite) as folder:
        for relative in (*manifest.files, *(g.file for c in manifest.components().values() for g in c.graphs.values())):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / relative, folder / relative)
        exact = replace(manifest, weights=replace(manifest.weights, root=str(root)))
        write_manifest(folder, quantize_manifest(exact, folder, root))


def _denoiser(entry: Denoiser, folder: Path, root: Path) -> Denoiser:
    if entry.form != "whole":
        raise InputError("int8: expected a denoiser in whole form, got blocks, whose weights are inputs; --form whole")
    if entry.precision != "float32":
        raise InputError(f"int8: expected a denoiser that computes in float32, got {entry.precision}; --precision fp32")
    graphs = {name: _graph(graph, folder, root) for name, graph in entry.graphs.items()}
    return replace(entry, graphs=graphs, quantization="int8")


def _graph(graph: Graph, folder: Path, root: Path) -> Graph:
    size = sum(_values(weight) for weight in graph.weights if not KEPT.search(weight.name))
    if size > MAX_BYTES:
        raise InputError(f"int8: {size / 1e9:.1f} GB of weights do not fit into one .onnx file, which holds 2 GB")
    path = folder / graph.file
    model = ir.load(path)
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.base_dir = str(root)
    left = quantize_int8(model, graph.weights, KEPT)
    ir.save(model, path)
    if graph.program is not None:
        (folder / graph.program).unlink(missing_ok=True)
    return replace(graph, sha256=file_sha256(path), weights=left, program=None)


def _values(weight: Weight) -> int:
    return math.prod(entry for entry in weight.shape if isinstance(entry, int))


def quantize_int8(model: ir.Model, weights: Sequence[Weight], keep: re.Pattern[str]) -> tuple[Weight, ...]:
    """Quantise the linear layers of a graph whose weights are external. Returns the weights that stay as they are.

    `keep` finds the names of those that are to stay. Weights are read one at a time.
    """
    shared: dict[int, tuple[ir.Value, ...]] = {}
    names = [weight.name for weight in weights if not keep.search(weight.name)]
    done = set()
    for linear in list(linears(model.graph, names)):
        _replace(model.graph, linear, shared)
        done.add(linear.weight.name)
    return tuple(weight for weight in weights if weight.name not in done)


def quantized(weight_OI: Array) -> tuple[Array, Array]:
    """int8 (in, out) and float32 scales (out,): the weight is nearly values * scales, transposed."""
    weight = np.asarray(weight_OI, np.float32)
    scale = np.abs(weight).max(axis=1) / LIMIT
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    values = np.rint(weight / scale[:, None]).astype(np.int8)
    return np.ascontiguousarray(values.T), scale


def _replace(graph: ir.Graph, linear: Linear, shared: dict[int, tuple[ir.Value, ...]]) -> None:
    """DynamicQuantizeLinear (one for all products of an input), MatMulInteger, and both scales on the result."""
    weight, matmul = linear.weight, linear.matmul
    x, result = matmul.inputs[0], matmul.outputs[0]
    assert x is not None and weight.const_value is not None
    values, scale = quantized(weight.const_value.numpy())
    w, w_scale = (constant(graph, f"{weight.name}.{n}", array) for n, array in (("int8", values), ("scale", scale)))
    nodes = []
    if id(x) not in shared:
        nodes.append(ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{x.name}.quantize"))
        shared[id(x)] = tuple(nodes[0].outputs)
    q, q_scale, zero = shared[id(x)]
    product = ir.node("MatMulInteger", [q, w, zero], name=f"{weight.name}.product")
    cast = ir.node("Cast", [product.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{weight.name}.float")
    scales = ir.node("Mul", [q_scale, w_scale], name=f"{weight.name}.scales")
    scaled = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{weight.name}.scaled")
    nodes += [product, cast, scales, scaled]
    for node in nodes:
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}.{index}"
    graph.insert_before(matmul, nodes)
    _take_over(result, scaled.outputs[0])
    for node in (matmul, *reversed(linear.between)):
        graph.remove(node, safe=True)
    graph.initializers.pop(str(weight.name))


def _take_over(old: ir.Value, new: ir.Value) -> None:
    """Users of `old` take `new`, which gets its name, type and shape."""
    name = old.name
    new.type, new.shape = old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = f"{name}.replaced", name
