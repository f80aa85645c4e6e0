"""What the communicators over torch share: a process group of some ranks, found by a store."""

from __future__ import annotations

import ctypes
import importlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from worldrt.engine.device import Buffer, Device
from worldrt.runtime.parallel.communicators.base import Collective, Communicator, Pieces
from worldrt.runtime.parallel.control import Control

FOREVER = timedelta(days=30)  # the watch knows better when to give up


def shared_store(control: Control) -> Any:
    """A store that all ranks of a run share; rank 0 has it."""
    distributed = importlib.import_module("torch.distributed")
    store = None
    if control.rank == 0:
        store = distributed.TCPStore(control.address, 0, None, True, wait_for_workers=False)
    address, port = control.collect([control.address, None if store is None else store.port])[0]
    return store or distributed.TCPStore(address, port, None, False, wait_for_workers=False)


class TorchCommunicator(Communicator):
    """Ranks that share a store. `torch` is the module."""

    def __init__(self, control: Control, members: Sequence[int], store: Any, device: Device) -> None:
        super().__init__(control, members)
        self.torch: Any = importlib.import_module("torch")
        self._store, self._device = store, device
        name = "-".join(map(str, self.members))
        prefix = importlib.import_module("torch.distributed").PrefixStore(f"ranks {name}", store)
        self._group = self._open(prefix)

    def group(self, members: Sequence[int]) -> Communicator:
        return type(self)(self.control, members, self._store, self._device)

    def close(self, *, failed: bool = False) -> None:
        if failed:  # its threads wait for a rank that does not come, and its end would wait for them
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._group))
        self._group = None

    def _all_gather(self, target: Buffer, source: Buffer) -> Collective:
        into, own = self._tensor(target), self._tensor(source)
        return lambda: self._finish(lambda: self._group._allgather_base(into, own))

    def _all_to_all(self, target: Pieces, source: Pieces) -> Collective:
        taken, given = ([[self._tensor(piece) for piece in pieces] for pieces in side] for side in (target, source))
        sizes = [[sum(len(piece) for piece in pieces) for pieces in side] for side in (taken, given)]
        into, out = (self._flat(sum(side)) for side in sizes)
        unpack, pack = _places(into, taken), _places(out, given)

        def run() -> None:
            for piece, place in pack:
                place.copy_(piece)
            self._finish(lambda: self._group.alltoall_base(into, out, *sizes))
            for piece, place in unpack:
                piece.copy_(place)

        return run

    def _broadcast(self, buffer: Buffer, root: int) -> Collective:
        tensor = self._tensor(buffer)
        return lambda: self._finish(lambda: self._group.broadcast(tensor, root))

    def _barrier(self) -> None:
        self._finish(lambda: self._group.barrier())

    @abstractmethod
    def _open(self, store: Any) -> Any:
        """The process group of these ranks."""

    @abstractmethod
    def _tensor(self, buffer: Buffer) -> Any:
        """The bytes of a buffer."""

    @abstractmethod
    def _flat(self, nbytes: int) -> Any:
        """Fresh bytes."""

    @abstractmethod
    def _finish(self, begin: Callable[[], Any]) -> None:
        """Begin the work that is given, and see to its end."""


def _places(flat: Any, pieces: Sequence[Sequence[Any]]) -> list[tuple[Any, Any]]:
    """Each piece with its place in a flat tensor."""
    every = [piece for group in pieces for piece in group]
    return list(zip(every, flat.split([len(piece) for piece in every]), strict=True))
