"""What pools want of a cluster: workers in processes of their own, that may die at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Make = Callable[..., Any]
"""Makes what a worker holds; it travels to the worker's process, so it is a function of a module or a `partial`. It is
given nothing, or, in a group of workers, the ranks of the first one."""
Ref = Any
"""Stands for what a call gives; may be given to another call, which waits for it."""


class Lost(Exception):  # noqa: N818  # no mistake of a user
    """A value cannot be had, because a worker or a machine is gone; or a call that it depends on was not made."""


class Handle(Protocol):
    """A worker. Its calls run one after another, in the order in which they were made."""

    def call(self, method: str, *args: Any) -> Ref:
        """Have it done; does not wait. References among the arguments become their values there."""
        ...

    def end(self) -> None:
        """Have the worker gone, whatever it does, and its place free."""
        ...


class Cluster(Protocol):
    """Starts workers. Values that are no longer referred to are let go."""

    def start(self, make: Make) -> Handle:
        """A worker that holds what `make` gives; does not wait for it."""
        ...

    def ready(self, ref: Ref) -> bool:
        """Whether a call is over, well or not."""
        ...

    def first(self, refs: Sequence[Ref]) -> int:
        """Wait until one of some calls is over, well or not; its place among them."""
        ...

    def wait(self, ref: Ref) -> None:
        """Wait until a call is over; what it gave stays where it is. Raises as `get` does."""
        ...

    def get(self, ref: Ref) -> Any:
        """What a call gave; waits for it. Raises `Lost`, or what the call raised."""
        ...
