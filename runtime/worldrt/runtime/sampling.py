"""The sampling loop: bind a level, evaluate, update, in place, row after row of a sampler's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer
from worldrt.kernels import MultistepUpdate
from worldrt.runtime.denoise import BoundDenoiser
from worldrt.runtime.samplers import SamplerTable

Rows = np.ndarray[Any, np.dtype[np.float64]]


def sample(
    bound: BoundDenoiser, table: SamplerTable, noise: np.ndarray[Any, Any], *, guidance: float = 0.0
) -> Iterator[int]:
    """Yield the number of rows done after each one. When it ends, `bound.x` holds the result.

    `noise` float32 (1, C, T, H, W), already at the table's first level. `guidance` g gives x0 = c + g (c - u). Nothing
    of the size of a tensor is allocated after the first row. The caller may stop between two rows.
    """
    frames = bound.x.shape[2]
    bound.fill("x", noise)
    levels = _levels(table, bound.inputs["level"].shape)
    rows = np.ascontiguousarray(np.broadcast_to(table.coefficients[:, None], (len(table), frames, 4)))
    level, run, upload = bound.inputs["level"], bound.run, bound.device.upload
    update = _update(bound, guidance, needs_previous=bool(table.coefficients[:, 2].any()))
    twin = (bound.inputs["x"][1:2], bound.x) if bound.batch == 2 else None
    for index in range(len(table)):
        upload(level, levels[index])
        run()
        update(rows[index])
        if twin:
            bound.device.copy(*twin)
        yield index + 1


def _levels(table: SamplerTable, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    levels = table.levels.astype(np.float32).reshape(-1, *[1] * len(shape))
    return np.ascontiguousarray(np.broadcast_to(levels, (len(table), *shape)))


def _update(bound: BoundDenoiser, guidance: float, *, needs_previous: bool) -> Callable[[Rows], object]:
    """The update in place on x, with the guided x0 kept in place for the next step."""
    x = _view(bound.x)
    prev = np.zeros(x.shape, np.float32) if needs_previous else None
    uncond = None if bound.uncond is None else _view(bound.uncond)
    return MultistepUpdate(x, _view(bound.cond), uncond=uncond, guidance=guidance, prev=prev, out=x, guided_out=prev)


def _view(buffer: Buffer) -> np.ndarray[Any, Any]:
    return buffer.numpy()
