"""NCCL without GPUs: ranks are threads, each with a `FakeCuda`; collectives are work of its streams that meets that of
the others. `log` holds what each rank has called, in order, with the bytes of its buffers."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

TIMEOUT_S = 100


class World:
    """What the ranks of a run share: a place to meet for each set of ranks."""

    def __init__(self):
        self.places, self.lock, self.splits = {}, threading.Lock(), {}

    def place(self, name, size):
        with self.lock:
            if name not in self.places:
                self.places[name] = (threading.Barrier(size), [None] * size)
            return self.places[name]

    def meet(self, name, rank, size, value):
        barrier, slots = self.place(name, size)
        slots[rank] = value
        barrier.wait(TIMEOUT_S)
        found = list(slots)
        barrier.wait(TIMEOUT_S)
        return found


class Library:
    """`nccl.core` as one rank sees it."""

    def __init__(self, world, cuda):
        self.world, self.cuda, self.log, self.aborted, self.grouped = world, cuda, [], 0, None
        self.UniqueId = SimpleNamespace(from_bytes=bytes)
        self.Communicator = SimpleNamespace(init=self._init)

    def get_unique_id(self):
        return b"unique"

    def _init(self, nranks, rank, unique_id):
        assert unique_id == b"unique"
        return Handle(self, "all", rank, nranks)

    @contextmanager
    def group(self):
        self.grouped = []
        yield
        grouped, self.grouped = self.grouped, None
        handle, stream = grouped[0][0], grouped[0][4]
        self.cuda.enqueue(stream, lambda: handle.swap(grouped))


class Handle:
    def __init__(self, library, name, rank, size):
        self.library, self.name, self.rank, self.size = library, name, rank, size

    def split(self, color, key):
        seen = self.library.world.meet(f"{self.name} split", self.rank, self.size, (color, key, self.rank))
        ours = [rank for _, _, rank in sorted(s for s in seen if s[0] == color)]
        return Handle(self.library, f"{self.name}/{ours}", ours.index(self.rank), len(ours))

    def _bytes(self, buffer):
        assert buffer.dtype == "uint8" and buffer.device.startswith("cuda")
        return self.library.cuda.view(buffer.pointer, buffer.nbytes)

    def _enqueue(self, name, buffers, stream, run):
        self.library.log.append((name, self.name, *(buffer.nbytes for buffer in buffers)))
        self.library.cuda.enqueue(stream, run)

    def _meet(self, value):
        return self.library.world.meet(self.name, self.rank, self.size, value)

    def allgather(self, source, target, *, stream):
        def run():
            self._bytes(target)[:] = [x for part in self._meet(bytes(self._bytes(source))) for x in part]

        self._enqueue("allgather", (source, target), stream, run)

    def broadcast(self, source, target, *, root, stream):
        def run():
            self._bytes(target)[:] = list(self._meet(bytes(self._bytes(source)))[root])

        self._enqueue("broadcast", (source,), stream, run)

    def send(self, buffer, *, peer, stream):
        self.library.grouped.append((self, "send", buffer, peer, stream))

    def recv(self, buffer, *, peer, stream):
        self.library.grouped.append((self, "recv", buffer, peer, stream))

    def swap(self, grouped):
        sent = [(peer, bytes(self._bytes(buffer))) for _, kind, buffer, peer, _ in grouped if kind == "send"]
        found = self._meet(sent)
        queues = {peer: [data for to, data in found[peer] if to == self.rank] for peer in range(self.size)}
        for _, kind, buffer, peer, _ in grouped:
            if kind == "recv":
                self._bytes(buffer)[:] = list(queues[peer].pop(0))
        assert not any(queues.values())

    def abort(self):
        self.library.aborted += 1

    def destroy(self):
        pass
