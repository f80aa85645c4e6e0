"""Several workers that are one: the first runs a stream, the others do their part of each call, as the ranks of a run.

The first one is rank 0. It waits for the others at an address that they are given, and what goes between them from then
on does not pass the cluster. Where one is lost, stuck or cut off, the first one hears of it, and the group is lost as a
whole: another one, with communicators of its own, goes on from the checkpoint.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from worldrt.engine.errors import BackendError, RankError, WorldrtError
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.meeting import Meeting, join
from worldrt.runtime.parallel.pools.base import Cluster, Handle, Lost, Make, Ref
from worldrt.runtime.parallel.pulse import LIMIT_S
from worldrt.runtime.parallel.ranks import Ranks

Where = tuple[str, int, str]
_CANNOT = "cannot do its part: "


class Groups:
    """A `Cluster` whose workers are groups of `size`. What it is given to make is made by the first worker of a group,
    with its ranks; `follow` is what the others do, with theirs. `own_address` gives a worker the address of its
    machine; a worker may be waited for `limit_s`."""

    def __init__(
        self,
        cluster: Cluster,
        size: int,
        follow: Callable[[Ranks], None],
        own_address: Callable[[], str],
        limit_s: float = LIMIT_S,
    ) -> None:
        self._cluster, self._size, self._follow = cluster, size, follow
        self._address, self._limit_s = own_address, limit_s
        self.ready, self.first, self.wait, self.get = cluster.ready, cluster.first, cluster.wait, cluster.get

    def start(self, make: Make) -> Group:
        limit_s = self._limit_s
        first = self._cluster.start(partial(First, make, self._size, self._address, limit_s))
        numbers = range(1, self._size)
        others = [self._cluster.start(partial(Other, self._follow, rank, self._size, limit_s)) for rank in numbers]
        return Group(first, others)


class Group:
    """The workers of a group as one."""

    def __init__(self, first: Handle, others: list[Handle]) -> None:
        self._first, self._others = first, others
        where = first.call("meet")
        self._work = [other.call("work", where) for other in others]
        first.call("gather")

    def call(self, method: str, *args: Any) -> Ref:
        return self._first.call("call", method, *args)

    def end(self) -> None:
        for handle in (self._first, *self._others):
            handle.end()


class First:
    """The worker that runs the stream; `make` makes what it holds."""

    def __init__(self, make: Callable[[Ranks], Any], size: int, own_address: Callable[[], str], limit_s: float) -> None:
        self._make, self._limit_s = make, limit_s
        self._meeting = Meeting(size, secrets.token_hex(16), own_address())
        self._where = own_address(), self._meeting.port, self._meeting.secret
        self._held: Any = None
        self.control: Host | None = None

    def meet(self) -> Where:
        """Where the others come to."""
        return self._where

    def gather(self) -> None:
        """Wait for the others."""
        self.control = self._meeting.hold(limit_s=self._limit_s)

    def call(self, method: str, *args: Any) -> Any:
        """A call of what is held. Raises `Lost` where another worker of the group is, `BackendError` where one says
        that it cannot do its part."""
        if self.control is None:
            raise Lost("a group of workers has not come together")
        try:
            self.control.check()
            if self._held is None:
                self._held = self._make(Ranks(self.control))
            return getattr(self._held, method)(*args)
        except RankError as error:
            if _CANNOT in str(error):
                raise BackendError(str(error)) from error
            raise Lost(str(error)) from error


class Other:
    """Any other worker."""

    def __init__(self, follow: Callable[[Ranks], None], rank: int, size: int, limit_s: float) -> None:
        self._follow, self._rank, self._size, self._limit_s = follow, rank, size, limit_s

    def work(self, where: Where) -> None:
        """Until the group ends."""
        self.control = join(self._rank, self._size, *where, limit_s=self._limit_s)
        try:
            self._follow(Ranks(self.control))
        except RankError:
            pass  # the first one knows
        except WorldrtError as error:
            self.control.fail(f"rank {self._rank} {_CANNOT}{error}")
        except Exception as error:
            self.control.fail(f"rank {self._rank}: {' '.join(str(error).split()) or type(error).__name__}")
        finally:
            self.control.close()
