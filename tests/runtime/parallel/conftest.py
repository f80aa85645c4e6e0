"""Runs of several ranks, each in a thread of this process: real connections, real gloo, one torch."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from worldrt.runtime.parallel.control import Control
from worldrt.runtime.parallel.meeting import LOOPBACK, Meeting, join

LIMIT_S = 60.0  # a loaded machine is no stall


def together(size: int, run: Callable[[Control], object], limit_s: float = LIMIT_S) -> list[object]:
    """What `run` returns, or raises, in each of `size` ranks."""
    meeting = Meeting(size, "secret")
    results: list[object] = [None] * size

    def rank(number: int) -> None:
        control = None
        try:
            if number == 0:
                control = meeting.hold(limit_s=limit_s)
            else:
                control = join(number, size, LOOPBACK, meeting.port, "secret", limit_s=limit_s)
            results[number] = run(control)
            control.collect(None)
        except BaseException as error:
            results[number] = error
            if control is not None:
                control.fail(f"rank {number}: {error}")
        finally:
            if control is not None:
                control.close()

    threads = [threading.Thread(target=rank, args=(number,), daemon=True) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not any(thread.is_alive() for thread in threads)
    return results


@pytest.fixture(scope="session")
def ranks():
    return together


@pytest.fixture(scope="session")
def all_well():
    """The results of ranks none of which may fail."""

    def run(size: int, work: Callable[[Control], object]) -> list:
        results = together(size, work)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    return run
