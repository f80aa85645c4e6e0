"""The sampling loop: bind a level, evaluate, update, in place, row after row of a sampler's table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from worldrt.kernels import MultistepUpdate
from worldrt.runtime.denoise import BoundDenoiser
from worldrt.runtime.samplers import SamplerTable


def sample(
    bound: BoundDenoiser, table: SamplerTable, noise: np.ndarray[Any, Any], *, guidance: float = 0.0
) -> Iterator[int]:
    """Yield the number of rows done after each one. When it ends, `bound.x` holds the result.

    `noise` float32 (1, C, T, H, W), already at the table's first level. `guidance` g gives x0 = c + g (c - u). Nothing
    of the size of a tensor is allocated after the first row. The caller may stop between two rows.
    """
    bound.fill("x", noise)
    level, run, upload = bound.inputs["level"], bound.run, bound.device.upload
    levels = _levels(table, level.shape)
    update = (_host_update if bound.device.name == "cpu" else _cuda_update)(bound, table, guidance)
    twin = (bound.inputs["x"][1:2], bound.x) if bound.batch == 2 else None
    for index in range(len(table)):
        upload(level, levels[index])
        run()
        update(index)
        if twin:
            bound.device.copy(*twin)
        yield index + 1


def _levels(table: SamplerTable, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    levels = table.levels.astype(np.float32).reshape(-1, *[1] * len(shape))
    return np.ascontiguousarray(np.broadcast_to(levels, (len(table), *shape)))


def _coefficients(bound: BoundDenoiser, table: SamplerTable) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(rows, frames, 4): every frame of a clip takes the same step."""
    return np.ascontiguousarray(np.broadcast_to(table.coefficients[:, None], (len(table), bound.x.shape[2], 4)))


def _host_update(bound: BoundDenoiser, table: SamplerTable, guidance: float) -> Callable[[int], object]:
    """The update of row i, in place on x; the guided x0 is kept in place too, for the next step."""
    x, rows = bound.x.numpy(), _coefficients(bound, table)
    prev = np.zeros(x.shape, np.float32) if table.needs_previous else None
    uncond = None if bound.uncond is None else bound.uncond.numpy()
    update = MultistepUpdate(x, bound.cond.numpy(), uncond=uncond, guidance=guidance, prev=prev, out=x, guided_out=prev)
    return lambda index: update(rows[index])


def _cuda_update(bound: BoundDenoiser, table: SamplerTable, guidance: float) -> Callable[[int], object]:
    """The same on the device's stream; coefficients are uploaded once."""
    device, x, rows = bound.device, bound.x, _coefficients(bound, table)
    on_device = device.empty(rows.shape, "float64")
    device.upload(on_device, rows)
    each = [on_device[i : i + 1].reshape(rows.shape[1:]) for i in range(len(rows))]
    prev = device.empty(x.shape, "float32") if table.needs_previous else None
    if prev is not None:
        device.upload(prev, np.zeros(x.shape, np.float32))
    step = partial(
        importlib.import_module("worldrt.kernels.cuda").multistep_update,
        *(x, bound.cond),
        uncond=bound.uncond,
        guidance=guidance,
        prev=prev,
        out=x,
        guided_out=prev,
        stream=getattr(device, "stream", 0),
    )
    return lambda index: step(coefficients=each[index])
