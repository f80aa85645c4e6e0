"""A bundle as one that computes in float32 on the same weights, so that any CPU can sample with it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import onnx_ir as ir

from worldrt.engine.bundle import Bundle, Component, Graph, file_sha256, load_bundle, write_manifest
from worldrt.export.passes.shadow import shadow, widened
from worldrt.export.quantize.fp4 import expand_fp4
from worldrt.export.quantize.softmax import expand_fp8_attention

C = TypeVar("C", bound=Component)


def float32_twin(bundle: Bundle, folder: Path) -> Bundle:
    """Write the twin of a bundle into `folder`, without torch programs. Its weights are those of the bundle.

    Rounding to half precision between layers is left out (`passes.shadow`), quantisation is not: attention over FP8
    rounds its softmax too, as engines do.
    """
    manifest = bundle.manifest
    for relative in manifest.files:
        if not relative.endswith(".pt2"):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path(relative), folder / relative)

    def twin(component: C) -> C:
        graphs = {name: _graph(bundle, graph, folder) for name, graph in component.graphs.items()}
        return replace(component, precision="float32", graphs=graphs)

    root = str(bundle.weight_root.absolute())
    changed = replace(
        manifest,
        weights=replace(manifest.weights, root=root),
        denoisers={name: twin(entry) for name, entry in manifest.denoisers.items()},
        vae=manifest.vae and twin(manifest.vae),
        text=manifest.text and twin(manifest.text),
        files={name: sha256 for name, sha256 in manifest.files.items() if not name.endswith(".pt2")},
    )
    write_manifest(folder, changed)
    return load_bundle(folder)


def _graph(bundle: Bundle, graph: Graph, folder: Path) -> Graph:
    path = folder / graph.file
    path.parent.mkdir(parents=True, exist_ok=True)
    model = ir.load(bundle.path(graph.file))
    shadow(model, {weight.name for weight in graph.weights})
    expand_fp8_attention(model.graph)
    expand_fp4(model.graph)
    ir.save(model, path)
    inputs, outputs = (widened(specs) for specs in (graph.inputs, graph.outputs))
    return replace(graph, sha256=file_sha256(path), inputs=inputs, outputs=outputs, program=None)
