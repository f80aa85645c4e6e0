"""Ranks on GPUs, by NCCL through torch, where nccl4py is not installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import Buffer, Device
from worldrt.engine.errors import BackendError
from worldrt.runtime.parallel.communicators._torch import FOREVER, TorchCommunicator, shared_store
from worldrt.runtime.parallel.communicators.base import Communicator
from worldrt.runtime.parallel.control import Control


def unavailable() -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "ranks on GPUs need torch with CUDA, or nccl4py: pip install nccl4py nvidia-nccl-cu13"
    if not hasattr(importlib.import_module("torch.distributed"), "ProcessGroupNCCL"):
        return "this torch is built without NCCL: pip install nccl4py nvidia-nccl-cu13"
    return None


def open(control: Control, device: Device) -> Communicator:
    """Of all ranks, each on a GPU of its own. Raises `BackendError` for a device that is no GPU."""
    if not isinstance(device, CudaDevice):
        raise BackendError(f"torch_nccl: it moves memory of GPUs, and the device is {device.name}")
    return TorchNccl(control, range(control.size), shared_store(control), device)


class TorchNccl(TorchCommunicator):
    """Collectives that are ordered after the work of the device's stream, and before what it is given next."""

    captured = True

    def _open(self, store: Any) -> Any:
        kind = importlib.import_module("torch.distributed").ProcessGroupNCCL
        options = kind.Options()
        options._timeout = FOREVER
        assert isinstance(self._device, CudaDevice)
        self._name = f"cuda:{self._device.index}"
        self._stream = self.torch.cuda.ExternalStream(self._device.stream, device=self._name)
        group = kind(store, self.rank, self.size, options)
        self.control.on_failure.append(group.abort)
        return group

    def _tensor(self, buffer: Buffer) -> Any:
        flat = Buffer(buffer.pointer, (buffer.nbytes,), "uint8", buffer.owner, buffer.device)
        return self.torch.as_tensor(flat, device=self._name)

    def _flat(self, nbytes: int) -> Any:
        return self.torch.empty(nbytes, dtype=self.torch.uint8, device=self._name)

    def _finish(self, begin: Callable[[], Any]) -> None:
        """The stream waits, not the host."""
        with self.torch.cuda.stream(self._stream):
            begin().wait()
