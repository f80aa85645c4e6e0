"""A cluster in this process, whose workers die when they are told to."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from worldrt.runtime.parallel.pools.base import Lost


class FakeRef:
    def __init__(self, value=None, error=None) -> None:
        self.value, self.error = value, error


class FakeCluster:
    """Calls are done at once. `dies(count, method)` is asked before each, and after it (method "after ...")."""

    def __init__(self, dies: Callable[[int, str], bool] = lambda count, method: False) -> None:
        self.dies, self.calls, self.workers, self.refs = dies, 0, [], []

    def start(self, make):
        self.workers.append(FakeHandle(self, make))
        return self.workers[-1]

    def ready(self, ref):
        return True

    def first(self, refs):
        return len(refs) - 1

    def wait(self, ref):
        if ref.error is not None:
            raise type(ref.error)(*ref.error.args)  # a fresh one: kept, it would keep alive who asked

    def get(self, ref):
        self.wait(ref)
        return pickle.loads(ref.value)

    @property
    def alive(self):
        return [worker for worker in self.workers if worker.held is not None]


class FakeHandle:
    def __init__(self, cluster, make) -> None:
        self.cluster, self.held = cluster, pickle.loads(pickle.dumps(make))()

    def call(self, method, *args):
        self.cluster.calls += 1
        name = args[1] if method == "run" else method
        if self.held is not None and self.cluster.dies(self.cluster.calls, name):
            self.held = None
        lost = [arg.error for arg in args if isinstance(arg, FakeRef) and arg.error is not None]
        if self.held is None or lost:
            return FakeRef(error=Lost("the worker is gone" if self.held is None else str(lost[0])))
        try:
            values = [pickle.loads(arg.value) if isinstance(arg, FakeRef) else arg for arg in args]
            made = FakeRef(pickle.dumps(getattr(self.held, method)(*values)))
        except Exception as error:
            return FakeRef(error=error)
        if self.cluster.dies(self.cluster.calls, f"after {name}"):
            self.held = None
            return FakeRef(error=Lost("the worker is gone, with what it made"))
        return made

    def end(self):
        self.held = None
