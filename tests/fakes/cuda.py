"""A CUDA runtime without a GPU: device memory is host memory, streams are queues.

Work of a greedy stream runs as soon as its events let it; that of another waits until someone waits for it. Between
begin and end of a capture, work is recorded, and runs at each launch. What the driver forbids (allocating or waiting in
a capture, waiting for an event of elsewhere in one, an unjoined stream) is an error code here too.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter, deque
from types import SimpleNamespace

import numpy as np

MAIN, COPY = 1, 2  # the handles that the first and the second stream of a runtime get
NOT_READY, UNSUPPORTED, INVALIDATED, UNJOINED, ISOLATION, CAPTURED_EVENT = 600, 900, 901, 904, 905, 907


class Streams:
    """Queues of work and the events between them."""

    def __init__(self, greedy):
        self.greedy, self.queues, self.done = greedy, {}, {}

    def put(self, stream, *op):
        self.queues.setdefault(stream, deque()).append(op)
        self.drain()

    def drain(self):
        """Run what greedy streams can run."""
        ran = True
        while ran:
            ran = any([self.step(s) for s in list(self.queues) if s in self.greedy])

    def step(self, stream):
        """Run the next work of a stream; False where there is none or it waits."""
        queue = self.queues.get(stream)
        if not queue:
            return False
        kind, *rest = queue[0]
        if kind == "wait" and self.done.get(rest[0], 0) < rest[1]:
            return False
        queue.popleft()
        if kind == "run":
            rest[0]()
        elif kind == "record":
            self.done[rest[0]] = max(self.done.get(rest[0], 0), rest[1])
        return True

    def finish(self, stream, until=None):
        """Run a stream to its end, or until an event; of the others only what it waits for."""
        while self.queues.get(stream) and (until is None or self.done.get(until[0], 0) < until[1]):
            if self.step(stream):
                self.drain()
            else:
                wanted = self.queues[stream][0][1:]
                (other,) = (s for s, queue in self.queues.items() if ("record", *wanted) in queue)
                self.finish(other, wanted)

    def finish_all(self):
        for stream in list(self.queues):
            self.finish(stream)


class FakeCuda:
    """`calls` counts API calls by name, and copies as `h2d`, `d2h`, `d2d`. `fail` maps a function to the error code
    of its next call. `step_ms` is what every pair of timed events is apart. `peak_bytes` of device memory were held."""

    cudaStreamNonBlocking, cudaEventDisableTiming = 1, 2
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="h2d", cudaMemcpyDeviceToHost="d2h", cudaMemcpyDeviceToDevice="d2d"
    )

    def __init__(self, *, devices=1, total_bytes=1 << 34, greedy=(MAIN, COPY)):
        self.devices, self.total_bytes, self.greedy = devices, total_bytes, greedy
        self.calls, self.fail, self.violations, self.step_ms = Counter(), {}, [], 1.0
        self.memory, self.pinned, self.streams = {}, set(), Streams(greedy)
        self.tickets, self.in_capture = {}, {}
        self.handles, self.graphs, self.peak_bytes = 0, {}, 0
        self.capture = None

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(value):
            return value

        def counted(*args):
            self.calls[name] += 1
            code = self.fail.pop(name, 0)
            return (code, None) if code else value(*args)

        return counted

    # memory

    @property
    def used_bytes(self):
        return sum(memory.nbytes for pointer, memory in self.memory.items() if pointer not in self.pinned)

    def view(self, pointer, nbytes):
        """Live memory, device or pinned, as bytes; fails for an address that was freed or never was."""
        for start, memory in self.memory.items():
            if start <= pointer and pointer + nbytes <= start + memory.nbytes:
                return memory[pointer - start :][:nbytes]
        raise AssertionError(f"{nbytes} bytes at {pointer:#x} are no live memory")

    def _allocate(self, nbytes):
        memory = np.full(nbytes + 256, 0xCD, np.uint8)
        memory = memory[-memory.ctypes.data % 256 :][:nbytes]
        self.memory[memory.ctypes.data] = memory
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return 0, memory.ctypes.data

    def _forbidden(self, name):
        """Captures are of a thread; others may do what they like meanwhile."""
        if self.capture is not None and self.capture.thread == threading.get_ident():
            self.violations.append(name)
            self.capture.broken = True
            return True
        return False

    def cudaMalloc(self, nbytes):
        if self._forbidden("cudaMalloc"):
            return UNSUPPORTED, None
        if self.used_bytes + nbytes > self.total_bytes:
            return 2, None
        return self._allocate(nbytes)

    def cudaHostAlloc(self, nbytes, flags):
        if self._forbidden("cudaHostAlloc"):
            return UNSUPPORTED, None
        code, pointer = self._allocate(nbytes)
        self.pinned.add(pointer)
        return code, pointer

    def cudaFree(self, pointer):
        if self._forbidden("cudaFree"):
            return (UNSUPPORTED,)
        self.streams.finish_all()
        self.memory.pop(pointer).fill(0xEE)
        return (0,)

    def cudaFreeHost(self, pointer):
        self.pinned.remove(pointer)
        return self.cudaFree(pointer)

    def cudaMemGetInfo(self):
        return 0, self.total_bytes - self.used_bytes, self.total_bytes

    def cudaMemcpyAsync(self, target, source, nbytes, kind, stream):
        self.calls[kind] += 1
        if kind == "h2d" and not any(p <= source < p + self.memory[p].nbytes for p in self.pinned):
            staged = ctypes.string_at(source, nbytes)  # pageable memory is read before the call returns

            def run():
                self.view(target, nbytes)[:] = np.frombuffer(staged, np.uint8)
        else:

            def run():
                for pointer, on_device in ((target, kind[2] == "d"), (source, kind[0] == "d")):
                    if on_device:
                        self.view(pointer, nbytes)
                ctypes.memmove(target, source, nbytes)

        return (self.enqueue(stream, run),)

    # devices, streams, events

    def cudaGetDeviceCount(self):
        return 0, self.devices

    def cudaSetDevice(self, index):
        self.current = index
        return (0,)

    def cudaGetDeviceProperties(self, index):
        return 0, SimpleNamespace(name=b"Fake 9000\0\0", major=8, minor=9, multiProcessorCount=128)

    def _handle(self):
        self.handles += 1
        return self.handles

    def cudaStreamCreateWithFlags(self, flags):
        return 0, self.calls["cudaStreamCreateWithFlags"]  # MAIN, COPY

    def cudaStreamDestroy(self, stream):
        return (0,)

    def cudaStreamSynchronize(self, stream):
        if self._forbidden("cudaStreamSynchronize"):
            return (UNSUPPORTED,)
        self.streams.finish(stream)
        return (0,)

    def cudaEventCreateWithFlags(self, flags):
        return 0, self._handle()

    def cudaEventDestroy(self, event):
        return (0,)

    def cudaEventRecord(self, event, stream):
        self.tickets[event] = self.tickets.get(event, 0) + 1
        captured = self.capture is not None and stream in self.capture.streams
        self.in_capture[event] = self.capture if captured else None
        return (self.enqueue(stream, "record", event, self.tickets[event]),)

    def cudaStreamWaitEvent(self, stream, event, flags):
        recorded = self.in_capture.get(event)
        if self.capture is None or (stream not in self.capture.streams and recorded is not self.capture):
            if recorded is not None:
                self.violations.append("wait for a captured event")
                return (CAPTURED_EVENT,)
            return (self.enqueue(stream, "wait", event, self.tickets.get(event, 0)),)
        if recorded is not self.capture:
            self.violations.append("wait across the capture")
            self.capture.broken = True
            return (ISOLATION,)
        return (self.capture.wait(stream, event, self.tickets[event]),)

    def cudaEventQuery(self, event):
        if self._forbidden("cudaEventQuery"):
            return (UNSUPPORTED,)
        return (0 if self.streams.done.get(event, 0) >= self.tickets.get(event, 0) else NOT_READY,)

    def cudaEventElapsedTime(self, start, end):
        return 0, self.step_ms

    def enqueue(self, stream, *op):
        """Give a stream work: a function, or the record of or wait for an event."""
        op = ("run", *op) if callable(op[0]) else op
        if self.capture is not None and stream in self.capture.streams:
            self.capture.add(stream, op)
        else:
            self.streams.put(stream, *op)
        return 0

    # capture

    def cudaStreamBeginCapture(self, stream, mode):
        assert self.capture is None
        self.capture = Capture(stream)
        return (0,)

    def cudaStreamEndCapture(self, stream):
        capture, self.capture = self.capture, None
        if capture.broken:
            return INVALIDATED, None
        if capture.unjoined:
            return UNJOINED, None
        self.graphs[handle := self._handle()] = capture
        return 0, handle

    def cudaGraphInstantiate(self, graph, flags):
        self.graphs[handle := self._handle()] = self.graphs[graph]
        return 0, handle

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return (0,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph, stream):
        ops = self.graphs[graph].ops

        def replay():
            streams = Streams(self.greedy)
            for where, op in ops:
                streams.put(where, *op)
            streams.finish_all()

        return (self.enqueue(stream, replay),)

    def cudaGetLastError(self):
        return (0,)


class Capture:
    """Work that is recorded, and the streams that were drawn in and must be joined again."""

    def __init__(self, origin):
        self.origin, self.streams, self.thread = origin, {origin}, threading.get_ident()
        self.ops, self.last, self.joined, self.broken = [], {}, {}, False

    def add(self, stream, op):
        self.ops.append((stream, op))
        self.last[stream] = op

    def wait(self, stream, event, ticket):
        self.streams.add(stream)
        self.ops.append((stream, ("wait", event, ticket)))
        self.last.setdefault(stream, None)
        for other, op in self.last.items():
            if stream == self.origin and op == ("record", event, ticket):
                self.joined[other] = op
        return 0

    @property
    def unjoined(self):
        return any(self.joined.get(s) != op or op is None for s, op in self.last.items() if s != self.origin)
