"""The update kernel bound to buffers, on the host and on a GPU's stream alike."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError
from worldrt.kernels import MultistepUpdate

Update = Callable[[], object]


def check_kernels(device: Device) -> None:
    """Raises `BackendError` where the device is a GPU and the kernels of a step are not there."""
    reason = None if device.name == "cpu" else importlib.import_module("worldrt.kernels.cuda").missing()
    if reason:
        raise BackendError(f"{device.name}: a step needs the CUDA kernels: {reason}; or use --device cpu")


def bind_update(
    device: Device,
    row: Buffer,
    x: Buffer,
    x0: Buffer,
    *,
    out: Buffer,
    uncond: Buffer | None = None,
    guidance: float = 0.0,
    prev: Buffer | None = None,
    noise: Buffer | None = None,
) -> Update:
    """`worldrt.kernels.multistep_update` of these buffers, with the coefficients float64 (T, 4) that `row` holds when
    it runs; the guided x0 is kept in `prev`. On a GPU it is given to the device's stream."""
    operands: dict[str, Any] = {"uncond": uncond, "prev": prev, "noise": noise, "out": out, "guided_out": prev}
    if device.name != "cpu":
        update = importlib.import_module("worldrt.kernels.cuda").multistep_update
        stream = getattr(device, "stream", 0)
        return partial(update, x, x0, **operands, guidance=guidance, coefficients=row, stream=stream)
    seen: dict[int, np.ndarray[Any, Any]] = {}  # one view of each buffer: the kernel knows an operand by its array

    def view(buffer: Buffer | None) -> Any:
        return None if buffer is None else seen.setdefault(buffer.pointer, buffer.numpy())

    arrays = {name: view(buffer) for name, buffer in operands.items()}
    return partial(MultistepUpdate(view(x), view(x0), **arrays, guidance=guidance), row.numpy())


def bind_copy(device: Device, target: Buffer, source: Buffer) -> Update:
    """A copy between two buffers of a shape."""
    if device.name == "cpu":
        return partial(np.copyto, target.numpy(), source.numpy())
    return partial(device.copy, target, source)


class Rows:
    """The rows of a table, on the device from the start; `set` copies one into a fixed place, where all that follows
    finds it: so it can be part of a CUDA graph."""

    def __init__(self, device: Device, place: Buffer, rows: np.ndarray[Any, Any]) -> None:
        self.place = place
        memory = device.empty(rows.shape, place.dtype)
        device.upload(memory, np.ascontiguousarray(rows))
        each = [memory[i : i + 1].reshape(place.shape) for i in range(len(rows))]
        self._copies = [bind_copy(device, place, row) for row in each]

    def set(self, index: int) -> None:
        self._copies[index]()
