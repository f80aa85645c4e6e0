"""Ranks on CPUs, by torch's gloo: for machines without GPUs, and for tests."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError
from worldrt.runtime.parallel.communicators._torch import FOREVER, TorchCommunicator, shared_store
from worldrt.runtime.parallel.communicators.base import Communicator
from worldrt.runtime.parallel.control import Control

_TURN = timedelta(milliseconds=250)
_LATE = "timed out"


def unavailable() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "ranks on CPUs need torch: pip install torch --index-url https://download.pytorch.org/whl/cpu"
    return None


def open(control: Control, device: Device) -> Communicator:
    """Of all ranks. Raises `BackendError` for a device that is not the host."""
    if device.name != "cpu":
        raise BackendError(f"gloo: it moves host memory, and the device is {device.name}")
    return Gloo(control, range(control.size), shared_store(control), device)


class Gloo(TorchCommunicator):
    """Collectives of host memory. They end in the thread that runs them."""

    def _open(self, store: Any) -> Any:
        kind = importlib.import_module("torch.distributed").ProcessGroupGloo
        options = kind._Options()
        options._devices, options._timeout = [kind.create_device(hostname=self.control.address)], FOREVER
        return kind(store, self.rank, self.size, options)

    def _tensor(self, buffer: Buffer) -> Any:
        return self.torch.from_numpy(buffer.numpy().reshape(-1).view("uint8"))

    def _flat(self, nbytes: int) -> Any:
        return self.torch.empty(nbytes, dtype=self.torch.uint8)

    def _finish(self, begin: Callable[[], Any]) -> None:
        """Wait in short turns, to hear of a rank that does not come."""
        wait = begin().wait
        while True:
            try:
                wait(_TURN)
                return
            except RuntimeError as error:
                if _LATE not in str(error):
                    raise
            self.control.check()
