"""Ranks on GPUs, by NCCL through nccl4py, on the device's stream."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError
from worldrt.runtime.parallel.communicators.base import Collective, Communicator, Pieces
from worldrt.runtime.parallel.control import Control


def unavailable() -> str | None:
    if importlib.util.find_spec("nccl") is None:
        return "ranks on GPUs need NCCL: pip install nccl4py nvidia-nccl-cu13"
    return None


def open(control: Control, device: Device, library: Any = None) -> Communicator:
    """Of all ranks, each on a GPU of its own. `library` is `nccl.core`, or a twin of it for tests.

    Raises `BackendError` for a device that is no GPU.
    """
    if not isinstance(device, CudaDevice):
        raise BackendError(f"nccl: it moves memory of GPUs, and the device is {device.name}")
    nccl = library if library is not None else importlib.import_module("nccl.core")
    mine = bytes(nccl.get_unique_id()).hex() if control.rank == 0 else None
    unique = nccl.UniqueId.from_bytes(bytes.fromhex(control.collect(mine)[0]))
    device.make_current()
    handle = nccl.Communicator.init(control.size, control.rank, unique)
    return Nccl(control, range(control.size), handle, device, nccl)


class Nccl(Communicator):
    """Collectives of device memory. When a rank is lost, what is under way is aborted, so that nobody waits for it."""

    captured = True

    def __init__(self, control: Control, members: Sequence[int], handle: Any, device: CudaDevice, library: Any) -> None:
        super().__init__(control, members)
        self._handle, self._device, self._nccl = handle, device, library
        self._token = device.empty((1,), "uint8")
        self.pointer = getattr(handle, "ptr", None)
        control.on_failure.append(handle.abort)

    def group(self, members: Sequence[int]) -> Communicator:
        """As of the base; besides, ranks that are no members take part by making a group of their own."""
        handle = self._handle.split(color=min(members), key=tuple(members).index(self.control.rank))
        return Nccl(self.control, members, handle, self._device, self._nccl)

    def close(self, *, failed: bool = False) -> None:
        if not failed:
            with suppress(Exception):  # the process is ending
                self._handle.destroy()

    def _all_gather(self, target: Buffer, source: Buffer) -> Collective:
        return self._given(self._handle.allgather, _bytes(source), _bytes(target))

    def _all_to_all(self, target: Pieces, source: Pieces) -> Collective:
        moves = [
            self._given(call, _bytes(piece), peer=peer)
            for call, side in ((self._handle.send, source), (self._handle.recv, target))
            for peer, pieces in enumerate(side)
            for piece in pieces
            if peer != self.rank
        ]
        own = list(zip(target[self.rank], source[self.rank], strict=True))

        def run() -> None:
            with self._nccl.group():
                for move in moves:
                    move()
            for place, piece in own:
                self._device.copy(place, piece)

        return run

    def _broadcast(self, buffer: Buffer, root: int) -> Collective:
        return self._given(self._handle.broadcast, _bytes(buffer), _bytes(buffer), root=root)

    def _barrier(self) -> None:
        self._broadcast(self._token, 0)()
        self._device.synchronize()

    def _given(self, call: Any, *args: Any, **named: Any) -> Collective:
        return partial(call, *args, stream=self._device.stream, **named)


def _bytes(buffer: Buffer) -> Buffer:
    """The same memory as bytes: NCCL need not know the dtype."""
    return Buffer(buffer.pointer, (buffer.nbytes,), "uint8", buffer.owner, buffer.device)
