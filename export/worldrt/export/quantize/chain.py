"""A denoiser in block form, run through embedding, blocks and head, to find ranges and errors of each block."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import Bundle
from worldrt.engine.device import Buffer
from worldrt.engine.quality import StepError
from worldrt.engine.session import Call
from worldrt.engine.tensors import solve_axes
from worldrt.engine.weights import open_weights
from worldrt.export.quantize import gate
from worldrt.export.quantize.calibrate import check_ranges
from worldrt.export.quantize.measure import LARGEST, buffers, magnitude, probe
from worldrt.export.quantize.runs import Recorded
from worldrt.export.quantize.scheme import Array, Scheme
from worldrt.export.quantize.static import chosen, ranged

_STATE = ("hidden", "q", "kv")  # what a block hands on, in the order of its outputs
PATCH = 2  # latent rows of a token
Watch = Callable[[ir.Graph], Mapping[str, ir.Value]]


class Chain:
    """The graphs of one denoiser of a bundle that computes in float32. `watch` gives scalars of `block` to be outputs.

    Weights stay in their mapped files; what is in memory is one block.
    """

    def __init__(self, bundle: Bundle, task: str, folder: Path, watch: Watch = lambda graph: {}) -> None:
        self._entry = bundle.manifest.denoisers[task]
        self._store = open_weights(bundle, self._entry)
        folder.mkdir()
        self._probes = {}
        for name, graph in self._entry.graphs.items():
            model = ir.load(bundle.path(graph.file))
            scalars = watch(model.graph) if name == "block" else {}
            self._probes[name] = probe(bundle, graph, folder / f"{name}.onnx", model, scalars)

    def blocks(self, call: Recorded) -> Iterator[tuple[str, Call]]:
        """What each instance of `block` gives, by its number, and `x0` of the head."""
        known: dict[str, Buffer] = buffers(_whole_frames(call))
        known |= self._outputs("embed", self._run("embed", known))
        for i in range(self._entry.blocks - 1):
            done = self._run("block", known, i)
            yield str(i), done
            known |= dict(zip(_STATE, self._outputs("block", done).values(), strict=True))
        yield "x0", self._run("head", known)

    def scalars(self, call: Call) -> dict[str, float]:
        """What was asked for of one call of `block`."""
        return self._probes["block"].scalars(call)

    def result(self, name: str, call: Call) -> Array:
        """x0, or what a block adds up to."""
        return next(iter(self._outputs("head" if name == "x0" else "block", call).values())).numpy()

    def _outputs(self, name: str, call: Call) -> dict[str, Buffer]:
        return {spec.name: call[spec.name] for spec in self._entry.graphs[name].outputs}

    def _run(self, name: str, inputs: Mapping[str, Buffer], block: int = 0) -> Call:
        graph = self._entry.graphs[name]
        axes = solve_axes(graph.inputs, {"x": inputs["x"].shape}) if name == "embed" else {}
        if axes:
            axes["tokens"] = axes["rows"] * axes["columns"]
        return self._probes[name].run(inputs, self._store.of_graph(graph, block), axes)


def _whole_frames(call: Recorded) -> Recorded:
    """With which rows of their frames there are, where that was not recorded: all."""
    frames, rows = call.inputs["x"].shape[2], call.inputs["x"].shape[3] // PATCH
    return Recorded({"row": np.array([[0, rows]] * frames, np.float32), **call.inputs})


def block_ranges(
    bundle: Bundle,
    task: str,
    scheme: Scheme,
    keep: re.Pattern[str] | None,
    calls: Sequence[Recorded],
    percentile: float = LARGEST,
) -> dict[str, Array]:
    """The largest magnitude of each activation in each instance of the block graph (blocks - 1,), as of
    `calibrate.ranges`. Raises `InputError` as that does."""

    weights = bundle.manifest.denoisers[task].graphs["block"].weights

    def watch(graph: ir.Graph) -> dict[str, ir.Value]:
        values = ranged(chosen(graph, weights, keep), scheme)
        return {f"amax.{value.name}": magnitude(graph, value, percentile) for value in values}

    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(bundle, task, Path(folder) / "ranges", watch)
        for call in calls:
            for name, done in chain.blocks(call):
                if name != "x0":
                    found.setdefault(name, []).append(chain.scalars(done))
    largest = {number: {key: max(row[key] for row in rows) for key in rows[0]} for number, rows in found.items()}
    check_ranges({f"{key} of block {number}": value for number, row in largest.items() for key, value in row.items()})
    names = [key.removeprefix("amax.") for key in largest["0"]]
    return {name: np.array([row[f"amax.{name}"] for row in largest.values()]) for name in names}


def block_errors(
    exact: Bundle, quantized: Bundle, task: str, calls: Sequence[Recorded]
) -> tuple[tuple[StepError, ...], dict[str, float]]:
    """`gate.errors` for the block form. The last block ends in the head, and counts with x0."""
    with tempfile.TemporaryDirectory() as folder:
        chains = [Chain(b, task, Path(folder) / name) for name, b in (("exact", exact), ("quantized", quantized))]
        return gate.worst((call.level, _errors(chains, call)) for call in calls)


def _errors(chains: Sequence[Chain], call: Recorded) -> dict[str, float]:
    found = {}
    for (name, exact), (_, actual) in zip(*(chain.blocks(call) for chain in chains), strict=True):
        reference = chains[0].result(name, exact).astype(np.float64)
        difference = chains[1].result(name, actual) - reference
        found[name] = gate.relative(float(np.square(difference).sum()), float(np.square(reference).sum()))
    return found
