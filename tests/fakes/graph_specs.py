"""A module that is to be exported, run on no data: only shapes and dtypes are looked at."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from worldrt.engine.tensors import solve_axes
from worldrt.export.graphs import GraphSource


def assert_specs_hold(source: GraphSource, axes: Mapping[str, int]) -> None:
    """What a module returns has the shapes and dtypes of its specs, whose axes follow from its inputs."""
    inputs = [torch.empty(s.resolve(axes), dtype=getattr(torch, s.dtype), device="meta") for s in source.inputs]
    with torch.no_grad():
        outputs = source.module(*inputs)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    for spec, tensor in zip(source.outputs, outputs, strict=True):
        assert (tuple(tensor.shape), tensor.dtype) == (spec.resolve(axes), getattr(torch, spec.dtype)), spec.name
    assert solve_axes(source.inputs, {s.name: tuple(t.shape) for s, t in zip(source.inputs, inputs, strict=True)})
