"""What a communicator is. The file name of an implementation is its name.

    gather = communicator.all_gather(everyone, own)     # bound once
    gather()                                            # run again and again

A collective moves bytes, whatever the dtype. On the host it is done when it returns; on a GPU it is given to the
device's stream. An implementation has `unavailable() -> str | None`, why it cannot be had here, and
`open(control, device) -> Communicator` that every rank of a run calls together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from worldrt.engine.device import Buffer
from worldrt.engine.errors import RankError, ShapeError
from worldrt.runtime.parallel.control import Control

Collective = Callable[[], None]
Pieces = Sequence[Sequence[Buffer]]
"""Buffers for each rank of a communicator."""


class Communicator(ABC):
    """Some ranks of a run, `members` by their rank in it; `rank` is the place of this one among them.

    `calls` and `received_bytes` count what was run and what came from other ranks. `captured`: collectives may be part
    of a CUDA graph.
    """

    captured = False
    pointer: int | None = None
    """The address of NCCL's communicator, where it is one that a library can be given."""

    def __init__(self, control: Control, members: Sequence[int]) -> None:
        self.control, self.members = control, tuple(members)
        self.rank, self.size = self.members.index(control.rank), len(self.members)
        self.calls = self.received_bytes = 0

    def all_gather(self, target: Buffer, source: Buffer) -> Collective:
        """`target` is the sources of all, one after another in the order of ranks; each is of the same size."""
        if target.nbytes != self.size * source.nbytes:
            raise ShapeError(f"all_gather of {self.size} x {source.nbytes} bytes into {target.nbytes}")
        return self._watched("all_gather", self._all_gather(target, source), target.nbytes - source.nbytes)

    def all_to_all(self, target: Pieces, source: Pieces) -> Collective:
        """Send `source[j]` to rank j, and receive `target[j]` from it, piece by piece, each of any size."""
        own = [sum(piece.nbytes for piece in pieces[self.rank]) for pieces in (target, source)]
        if len(target) != self.size or len(source) != self.size or own[0] != own[1]:
            raise ShapeError(f"all_to_all among {self.size}: expected pieces for each, and equal ones for rank itself")
        received = sum(piece.nbytes for pieces in target for piece in pieces) - own[0]
        return self._watched("all_to_all", self._all_to_all(target, source), received)

    def broadcast(self, buffer: Buffer, root: int = 0) -> Collective:
        """All have what `root` has."""
        received = 0 if self.rank == root else buffer.nbytes
        return self._watched("broadcast", self._broadcast(buffer, root), received)

    def exchange(self, target: Buffer, source: Buffer, peer: int) -> Collective:
        """Send to one other rank, and receive from it, which does the same."""
        pieces: list[list[Buffer]] = [[] for _ in self.members]
        sent, received = list(pieces), list(pieces)
        sent[peer], received[peer] = [source], [target]
        return self._watched("exchange", self._all_to_all(received, sent), target.nbytes)

    def barrier(self) -> None:
        """Return when all have come here."""
        self._watched("barrier", self._barrier, 0)()

    def _watched(self, name: str, run: Collective, received: int) -> Collective:
        """The collective, counted, under the eyes of the watch; its errors name ranks."""
        control, progress = self.control, self.control.progress

        def collective() -> None:
            control.check()
            self.calls += 1
            self.received_bytes += received
            progress.enter()
            try:
                run()
            except RankError:
                raise
            except Exception as error:
                raise control.explained(RuntimeError(f"{name} among ranks {self.members}: {error}")) from error
            finally:
                progress.leave()

        return collective

    @abstractmethod
    def group(self, members: Sequence[int]) -> Communicator:
        """A communicator of some ranks of the run, this one among them. All members call this, and each rank in the
        same order."""

    @abstractmethod
    def close(self, *, failed: bool = False) -> None:
        """Free what there is; `failed`: without the help of other ranks."""

    @abstractmethod
    def _all_gather(self, target: Buffer, source: Buffer) -> Collective: ...

    @abstractmethod
    def _all_to_all(self, target: Pieces, source: Pieces) -> Collective: ...

    @abstractmethod
    def _broadcast(self, buffer: Buffer, root: int) -> Collective: ...

    @abstractmethod
    def _barrier(self) -> None: ...
