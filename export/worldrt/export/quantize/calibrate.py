"""The ranges of weights, and those of activations over recorded calls of a denoiser."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worldrt.engine.bundle import Bundle, Denoiser
from worldrt.engine.errors import InputError
from worldrt.engine.weights import WeightStore
from worldrt.export.quantize.measure import LARGEST, magnitude, probe
from worldrt.export.quantize.runs import Recorded
from worldrt.export.quantize.scheme import Array, Scheme
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
    check_ranges(amax)
    return amax


def check_ranges(amax: Mapping[str, float]) -> None:
    """Raises `InputError` where a range is infinite or not a number."""
    for name, value in amax.items():
        if not 0 <= value < float("inf"):
            raise InputError(f"calibration: the activation '{name}' has a magnitude of {value}: expected a finite one")


def weight_amax(store: WeightStore, key: str, block: int | None = None) -> Array:
    """The largest magnitude of each row of a stored weight (out,), or of each `block` numbers of a row; float64.

    Raises `InputError` where a row is no multiple of that.
    """
    buffer = store[key]
    values = buffer.numpy()
    if buffer.dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    width = values.shape[1]
    if block is not None and width % block:
        raise InputError(
            f"'{key}': {width} inputs are no multiple of {block}, which share a scale; see --quantize_keep"
        )
    result: Array = np.abs(values).reshape(len(values), -1, block or width).max(axis=2).astype(np.float64)
    return result if block is not None else result[:, 0]
