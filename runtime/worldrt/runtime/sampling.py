"""The sampling loop: bind a level, evaluate, update, in place, row after row of a sampler's table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError
from worldrt.kernels import MultistepUpdate
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.samplers import SamplerTable


def sample(
    bound: BoundDenoiser, table: SamplerTable, noise: np.ndarray[Any, Any], *, guidance: float = 0.0
) -> Iterator[int]:
    """Yield the number of rows done after each one. When it ends, `bound.x` holds the result.

    `noise` float32 (1, C, T, H, W), already at the table's first level. `guidance` g gives x0 = c + g (c - u). Nothing
    of the size of a tensor is allocated after the first row. The caller may stop between two rows.
    """
    check_kernels(bound.device)
    bound.fill("x", noise)
    step = (_host_step if bound.device.name == "cpu" else _device_step)(bound, table, guidance)
    for index in range(len(table)):
        step(index)
        yield index + 1


def check_kernels(device: Device) -> None:
    """Raises `BackendError` where the device is a GPU and the kernels of a step are not there."""
    reason = None if device.name == "cpu" else importlib.import_module("worldrt.kernels.cuda").missing()
    if reason:
        raise BackendError(f"{device.name}: a step needs the CUDA kernels: {reason}; or use --device cpu")


def _host_step(bound: BoundDenoiser, table: SamplerTable, guidance: float) -> Callable[[int], None]:
    """Row i of the table."""
    level, run, upload, copy = bound.inputs["level"], bound.run, bound.device.upload, bound.device.copy
    levels, update, twin = _levels(table, level.shape), _host_update(bound, table, guidance), _twin(bound)

    def step(index: int) -> None:
        upload(level, levels[index])
        run()
        update(index)
        if twin:
            copy(*twin)

    return step


def _device_step(bound: BoundDenoiser, table: SamplerTable, guidance: float) -> Callable[[int], None]:
    """The same on the device's stream: level and coefficients of all rows are there from the start, and a step begins
    with two small copies into fixed places, so that all that follows can be one CUDA graph."""
    device, level, twin = bound.device, bound.inputs["level"], _twin(bound)
    levels, rows = _levels(table, level.shape), _coefficients(bound, table)
    row = bound.keep("coefficients", rows.shape[1:], "float64")
    update = _device_update(bound, table.needs_previous, row, guidance)
    each_level, each_row = _rows_on_device(device, levels, "float32"), _rows_on_device(device, rows, "float64")

    def body() -> None:
        bound.run()
        update()
        if twin:
            device.copy(*twin)

    def step(index: int) -> None:
        device.copy(level, each_level[index])
        device.copy(row, each_row[index])
        bound.step((guidance, table.needs_previous), body)

    return step


def _twin(bound: BoundDenoiser) -> tuple[Buffer, Buffer] | None:
    """Where both texts go through one call, the second state follows the first."""
    return (bound.inputs["x"][1:2], bound.x) if bound.batch == 2 else None


def _rows_on_device(device: Device, rows: np.ndarray[Any, Any], dtype: str) -> list[Buffer]:
    memory = device.empty(rows.shape, dtype)
    device.upload(memory, rows)
    return [memory[i : i + 1].reshape(rows.shape[1:]) for i in range(len(rows))]


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


def _device_update(bound: BoundDenoiser, needs_previous: bool, row: Buffer, guidance: float) -> Callable[[], None]:
    """The same on the device's stream, with the coefficients that `row` holds when it runs."""
    device, x = bound.device, bound.x
    prev = bound.keep("previous", x.shape, "float32") if needs_previous else None
    if prev is not None:
        device.upload(prev, np.zeros(x.shape, np.float32))
    return partial(
        importlib.import_module("worldrt.kernels.cuda").multistep_update,
        *(x, bound.cond),
        uncond=bound.uncond,
        guidance=guidance,
        prev=prev,
        coefficients=row,
        out=x,
        guided_out=prev,
        stream=getattr(device, "stream", 0),
    )
