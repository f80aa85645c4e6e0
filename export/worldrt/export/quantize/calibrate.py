"""The ranges of activations over recorded calls of a denoiser."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from worldrt.engine.bundle import Bundle, Denoiser
from worldrt.engine.errors import InputError
from worldrt.export.quantize.measure import LARGEST, magnitude, probe
from worldrt.export.quantize.runs import Recorded
from worldrt.export.quantize.scheme import Scheme
from worldrt.export.quantize.static import chosen, ranged


def ranges(
    bundle: Bundle,
    denoiser: Denoiser,
    scheme: Scheme,
    keep: re.Pattern[str] | None,
    calls: Sequence[Recorded],
    percentile: float = LARGEST,
) -> dict[str, float]:
    """The largest magnitude of each activation that a scheme needs, by name, over all calls; with a percentile, the
    largest of those of the calls. `bundle` computes in float32.

    Raises `InputError` where an activation is infinite or not a number.
    """
    graph = denoiser.graphs["denoise"]
    model = ir.load(bundle.path(graph.file))
    values = ranged(chosen(model.graph, graph.weights, keep), scheme)
    if not values:
        return {}
    names = [value.name or "" for value in values]
    scalars = {
        f"amax.{name}": magnitude(model.graph, value, percentile) for name, value in zip(names, values, strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        measure = probe(bundle, graph, Path(folder) / "ranges.onnx", model, scalars)
        found = [measure(call) for call in calls]
    amax = {name: max(row[f"amax.{name}"] for row in found) for name in names}
    for name, value in amax.items():
        if not 0 <= value < float("inf"):
            raise InputError(f"calibration: the activation '{name}' has a magnitude of {value}: expected a finite one")
    return amax
