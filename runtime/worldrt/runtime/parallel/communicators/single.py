"""A run of one rank: collectives are copies, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

from worldrt.engine.device import Buffer, Device
from worldrt.runtime.parallel.communicators.base import Collective, Communicator, Pieces
from worldrt.runtime.parallel.control import Control


def unavailable() -> str | None:
    return None


def open(control: Control, device: Device) -> Communicator:
    """Of this rank alone."""
    return Single(control, device)


class Single(Communicator):
    """This rank alone."""

    captured = True

    def __init__(self, control: Control, device: Device) -> None:
        super().__init__(control, [control.rank])
        self._device = device

    def group(self, members: Sequence[int]) -> Communicator:
        return self

    def close(self, *, failed: bool = False) -> None:
        pass

    def _all_gather(self, target: Buffer, source: Buffer) -> Collective:
        return self._copies([(target, source)])

    def _all_to_all(self, target: Pieces, source: Pieces) -> Collective:
        return self._copies(list(zip(target[0], source[0], strict=True)))

    def _broadcast(self, buffer: Buffer, root: int) -> Collective:
        return self._barrier

    def _barrier(self) -> None:
        pass

    def _copies(self, pairs: list[tuple[Buffer, Buffer]]) -> Collective:
        moved = [(t.reshape(s.shape), s) for t, s in pairs if t.pointer != s.pointer]

        def run() -> None:
            for target, source in moved:
                self._device.copy(target, source)

        return run
