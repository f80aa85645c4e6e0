"""A decoder in parts that run one after another, each on a device of its own: while one works on a latent, the one
before it works on the next. What is computed stays the same, to the bit.

The step graphs are cut between two of their nodes, where few tensors cross. A part has the caches of its own
convolutions. Parts are for one size: sizes that follow from the shapes of inputs become constants.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.bundle import Bundle, Graph, Vae, file_sha256
from worldrt.engine.errors import BackendError, InputError, UnsupportedError
from worldrt.engine.tensors import TensorSpec, split_axis
from worldrt.runtime.parallel.vae_graph import Node, OnnxGraph, weight_of

GRAPHS = ("decode_next", "decode_first")
_IN, _OUT = "cache_in_", "cache_"
_PRICE_OF_A_TENSOR = 0.03
"""How much worse the balance of two parts may be for one tensor less between them."""


@dataclass(frozen=True)
class Wires:
    """What crosses: the tensors that a part takes from the one before, and gives to the next."""

    takes: tuple[str, ...]
    gives: tuple[str, ...]


@dataclass(frozen=True)
class DecoderPart:
    """`bundle` holds the part as its VAE; `wires` are those of its graphs."""

    bundle: Bundle
    spec: Vae
    wires: Mapping[str, Wires]


def decoder_parts(bundle: Bundle, count: int, axes: Mapping[str, int], folder: Path) -> list[DecoderPart]:
    """The decoder of a bundle in `count` parts, written into a folder, for batch, rows and columns of `axes`.

    Raises `InputError` where it has fewer places to be cut at, `UnsupportedError` where its graphs cannot be cut.
    """
    spec = bundle.manifest.vae
    if spec is None:
        raise InputError(f"{bundle.folder}: this bundle has no VAE; export it again with all components")
    graphs = {name: _Cut(bundle, spec.graphs[name], axes) for name in GRAPHS}
    where = graphs[GRAPHS[0]].balanced(count)
    made = {name: graph.write(graph.places(where), folder, name) for name, graph in graphs.items()}
    parts = []
    for i in range(count):
        own = replace(spec, graphs={name: made[name][i][0] for name in GRAPHS})
        manifest = replace(bundle.manifest, vae=own)
        wires = {name: made[name][i][1] for name in GRAPHS}
        parts.append(DecoderPart(replace(bundle, folder=folder, manifest=manifest), own, wires))
    return parts


@dataclass(frozen=True)
class _Place:
    """Before node `at`: the caches that are made before, what crosses, and the share of the work before it."""

    at: int
    caches: frozenset[str]
    carried: tuple[str, ...]
    share: float


class _Cut:
    """A step graph and the places where it may be cut."""

    def __init__(self, bundle: Bundle, graph: Graph, axes: Mapping[str, int]) -> None:
        if graph.weights_as != "external":
            raise UnsupportedError(f"{graph.file}: a decoder is cut where its weights are external, not inputs")
        self._bundle, self._spec = bundle, graph
        self._onnx = OnnxGraph.read(bundle.path(graph.file))
        self._inputs = {s.name: TensorSpec(s.name, s.dtype, s.resolve(axes)) for s in graph.inputs}
        self._outputs = {s.name: TensorSpec(s.name, s.dtype, s.resolve(axes)) for s in graph.outputs}
        of_sizes = self._onnx.of_sizes(self._inputs)
        known = {id(node) for node in of_sizes}
        self._constants = [node for node in self._onnx.nodes if node.op == "Constant"]
        self._body = [node for node in self._onnx.nodes if id(node) not in known and node.op != "Constant"]
        self._sizes = self._probed(of_sizes)
        self._places = self._found()

    def balanced(self, count: int) -> list[frozenset[str]]:
        """The caches before each cut, for parts with about equal work."""
        chosen: list[frozenset[str]] = []
        for i in range(1, count):
            last = chosen[-1] if chosen else frozenset()
            left = [place for place in self._places if last < place.caches and place.share < 1]
            if not left:
                raise InputError(f"{self._spec.file}: it cannot be cut into {count} parts; ask for fewer")
            best = min(left, key=lambda p: abs(p.share - i / count) + _PRICE_OF_A_TENSOR * len(p.carried))
            chosen.append(best.caches)
        return chosen

    def places(self, caches: Sequence[frozenset[str]]) -> list[_Place]:
        """Where to cut so that these caches are made before."""
        found = []
        for wanted in caches:
            fitting = [place for place in self._places if place.caches == wanted]
            if not fitting:
                raise UnsupportedError(f"{self._spec.file}: no place to be cut at like that of the other step graph")
            found.append(min(fitting, key=lambda place: (len(place.carried), place.at)))
        return found

    def write(self, places: Sequence[_Place], folder: Path, name: str) -> list[tuple[Graph, Wires]]:
        """Write the parts."""
        bounds = [0, *(place.at for place in places), len(self._body)]
        final = tuple(output for output in self._outputs if not output.startswith(_OUT))
        carried = [*(place.carried for place in places), final]
        takes = tuple(self._inputs[n] for n in self._inputs if not n.startswith(_IN))
        written = []
        for i, gives in enumerate(carried):
            nodes = self._body[bounds[i] : bounds[i + 1]]
            path = folder / f"{name}_{i}.onnx"
            graph = self._written(path, nodes, takes, gives)
            written.append((graph, Wires(tuple(spec.name for spec in takes), gives)))
            made = {spec.name: spec for spec in graph.outputs}
            takes = tuple(made[tensor] for tensor in gives)
        return written

    def _written(self, path: Path, nodes: Sequence[Node], takes: Sequence[TensorSpec], gives: Sequence[str]) -> Graph:
        used = {tensor for node in nodes for tensor in node.inputs}
        made = {tensor for node in nodes for tensor in node.outputs}
        inputs = [*takes, *(s for n, s in self._inputs.items() if n.startswith(_IN) and n in used)]
        given = {spec.name: spec.dtype for spec in takes}
        outputs = {tensor: given.get(tensor, self._dtype(tensor)) for tensor in gives}
        outputs |= {n: s.dtype for n, s in self._outputs.items() if n.startswith(_OUT) and n in made}
        constants = [node for node in self._constants if used & set(node.outputs)]
        path.write_bytes(self._onnx.part([*constants, *nodes], inputs, outputs, self._sizes))
        shapes = self._shapes(path) | {spec.name: spec.shape for spec in takes}
        specs = tuple(TensorSpec(tensor, dtype, shapes[tensor]) for tensor, dtype in outputs.items())
        weights = tuple(weight for weight in self._spec.weights if weight.name in used)
        return replace(
            self._spec,
            file=path.name,
            sha256=file_sha256(path),
            inputs=tuple(inputs),
            outputs=specs,
            weights=weights,
            program=None,
        )

    def _dtype(self, tensor: str) -> str:
        return self._outputs[tensor].dtype if tensor in self._outputs else self._onnx.dtype(tensor)

    def _found(self) -> list[_Place]:
        last = {tensor: i for i, node in enumerate(self._body) for tensor in node.inputs}
        alive = {name for name in self._inputs if not name.startswith(_IN)}
        read: set[str] = set()
        made: set[str] = set()
        places = []
        work = list(accumulate(self._work()))
        for i, node in enumerate(self._body):
            if i and read in (set(), made):
                carried = tuple(sorted(tensor for tensor in alive if last.get(tensor, -1) >= i))
                if not any(tensor.startswith(_OUT) for tensor in carried):
                    places.append(_Place(i, frozenset(made), carried, work[i - 1] / max(1, work[-1])))
            alive.update(node.outputs)
            read |= {tensor.removeprefix(_IN) for tensor in node.inputs if tensor.startswith(_IN)}
            made |= {tensor.removeprefix(_OUT) for tensor in node.outputs if tensor in self._outputs} - {"frames"}
        return [place for place in places if place.caches]

    def _work(self) -> list[int]:
        """Of each node: multiplications, as far as the file tells; pictures grow from cache to cache."""
        scale, work = 1, []
        shapes = {spec.name: spec.shape for spec in (*self._spec.inputs, *self._spec.outputs)}
        for node in self._body:
            for tensor in (*node.inputs, *node.outputs):
                if tensor.startswith(_OUT) and tensor in shapes:
                    scale = max(split_axis(size)[0] for size in shapes[tensor] if isinstance(size, str))
            work.append(weight_of(self._onnx, node) * scale**2)
        return work

    def _probed(self, nodes: Sequence[Node]) -> dict[str, np.ndarray[Any, Any]]:
        """The numbers that nodes of sizes give for these shapes."""
        used = {tensor for node in self._body for tensor in node.inputs}
        wanted = dict.fromkeys(tensor for node in nodes for tensor in node.outputs if tensor in used)
        if not wanted:
            return {}
        taken = {tensor for node in nodes for tensor in node.inputs}
        inputs = [replace(spec, dtype="uint8") for name, spec in self._inputs.items() if name in taken]
        constants = [node for node in self._constants if taken & set(node.outputs)]
        ort = importlib.import_module("onnxruntime")
        session = ort.InferenceSession(self._onnx.part([*constants, *nodes], inputs, wanted, {}))
        zeros = {spec.name: np.zeros(spec.resolve({}), np.uint8) for spec in inputs}
        return dict(zip(wanted, session.run(list(wanted), zeros), strict=True))

    def _shapes(self, path: Path) -> dict[str, tuple[int, ...]]:
        """Of what a part gives, as ONNX Runtime infers them."""
        ort = importlib.import_module("onnxruntime")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        root = str(self._bundle.weight_root)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", root)
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"ONNX Runtime refuses a part of {self._spec.file}: {str(error).strip()}") from error
        shapes = {value.name: tuple(value.shape) for value in session.get_outputs()}
        open_ = next((name for name, shape in shapes.items() if not all(isinstance(s, int) for s in shape)), None)
        if open_ is not None:
            raise UnsupportedError(f"{self._spec.file}: the shape of '{open_}' {shapes[open_]} is not known there")
        return shapes
