"""Weights that come to the device in turn, in every order in which two streams may take their work."""

import numpy as np
import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import host_buffer
from worldrt.engine.errors import BackendError, DeviceMemoryError
from worldrt.engine.graphs import StepGraphs
from worldrt.engine.prefetch import BlockWeights

from ..fakes.cuda import COPY, MAIN, FakeCuda

BLOCK_BYTES = 512  # two tensors, each on a place of its own that is a multiple of 256
ORDERS = [(MAIN, COPY), (COPY,), (MAIN,), ()]


class Chain:
    """Blocks y = 3 y + a + b[0], whose weights a and b are their own; a step runs all, `passes` times. Every third one
    is of another graph where they are `mixed`, whose a is longer."""

    def __init__(self, blocks, room_blocks, greedy=(MAIN, COPY), passes=1, mixed=False):
        self.runtime = FakeCuda(greedy=greedy)
        self.device = CudaDevice(0, self.runtime)
        self.y = self.device.empty((1,), "float64")
        self.device.upload(self.y, np.zeros(1))
        self.numbers = [(float(i), float(i * i)) for i in range(1, blocks + 1)]
        instances = [
            {"a": host_buffer(np.array([a])), "b": host_buffer(np.array([b, 7.0, 7.0]))} for a, b in self.numbers
        ]
        for weights in instances[::3] if mixed else ():
            weights["a"] = host_buffer(np.array([*weights["a"].numpy(), *range(40)]))
        self.weights = BlockWeights(self.device, instances)
        self.device.limit_bytes = self.device.held_bytes + int(room_blocks * BLOCK_BYTES)
        self.weights.of(0)
        self.weights.settle()
        self.calls = [self.weights.call(i, self._block(i)) for i in range(blocks)] * passes
        self.expected = 0.0

    def _block(self, i):
        weights = self.weights.of(i)

        def run():
            def compute():
                y, a, b = (self.runtime.view(x.pointer, 8).view(np.float64) for x in (self.y, *weights.values()))
                y[0] = (3 * y[0] + a[0] + b[0]) % 1e6

            self.runtime.enqueue(self.device.stream, compute)

        return run

    def body(self):
        self.weights.begin()
        for call in self.calls:
            call()
        self.weights.end()

    def check(self):
        for _ in range(len(self.calls) // len(self.numbers)):
            for a, b in self.numbers:
                self.expected = (3 * self.expected + a + b) % 1e6
        assert self.device.download(self.y)[0] == self.expected


@pytest.mark.parametrize("greedy", ORDERS)
@pytest.mark.parametrize(("blocks", "room"), [(3, 2), (4, 2), (5, 2), (6, 3), (7, 4.5), (2, 2), (1, 1), (9, 2)])
@pytest.mark.parametrize("passes", [1, 2])
def test_every_block_finds_its_own_weights(blocks, room, passes, greedy):
    chain = Chain(blocks, room, greedy, passes)
    steps = StepGraphs(chain.device, mode="on")
    for _ in range(3):
        chain.body()
        chain.check()
    for _ in range(4):
        steps.run("key", chain.body)
        chain.check()
    assert not chain.runtime.violations and chain.runtime.calls["cudaGraphLaunch"] == 3


@pytest.mark.parametrize("greedy", ORDERS)
def test_steps_follow_each_other_without_a_wait(greedy):
    """Several eager steps, then several launches, and one look at the end."""
    chain = Chain(5, 2, greedy)
    steps = StepGraphs(chain.device, mode="on")
    for _ in range(6):
        steps.run("key", chain.body)
    for _ in range(6):
        for a, b in chain.numbers:
            chain.expected = (3 * chain.expected + a + b) % 1e6
    assert chain.device.download(chain.y)[0] == chain.expected
    assert chain.runtime.calls["cudaStreamSynchronize"] == 1


@pytest.mark.parametrize(("blocks", "room", "resident"), [(6, 6, 6), (6, 5.9, 3), (6, 4, 2), (6, 2, 0), (2, 2, 2)])
def test_memory_is_shared_out(blocks, room, resident):
    """All where they fit; else two slots, and as many blocks as the rest holds. Nothing is pinned without need."""
    chain = Chain(blocks, room)
    assert chain.weights.resident == resident and chain.weights.block_bytes == BLOCK_BYTES
    assert len(chain.runtime.pinned) == blocks - resident
    assert chain.device.held_bytes <= chain.device.limit_bytes
    copies = chain.runtime.calls["h2d"]
    chain.body()
    primed = chain.runtime.calls["h2d"] - copies
    chain.body()
    each = {3: 2}.get(blocks - resident, blocks - resident)  # of three, one has a slot for itself
    assert (primed, chain.runtime.calls["h2d"] - copies - primed) == (each + 2 if each else 0, each)


@pytest.mark.parametrize("greedy", ORDERS)
@pytest.mark.parametrize(("room", "resident"), [(8.5, 7), (8.4, 4), (5, 1), (3, 0)])
def test_blocks_of_several_graphs_have_places_of_their_own_sizes(room, resident, greedy):
    """A slot takes the largest one; a block on the device takes its own size."""
    chain = Chain(7, room, greedy, mixed=True)
    assert chain.weights.resident == resident and chain.device.held_bytes <= chain.device.limit_bytes
    steps = StepGraphs(chain.device, mode="on")
    for _ in range(4):
        steps.run("key", chain.body)
        chain.check()
    assert not chain.runtime.violations and chain.runtime.calls["cudaGraphLaunch"] == 3


def test_a_step_that_fails_leaves_nothing_stale():
    chain = Chain(5, 2)
    chain.body()
    calls, chain.calls = chain.calls, [*chain.calls[:3], lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        chain.body()
    chain.calls = calls
    chain.expected = chain.device.download(chain.y)[0]
    chain.body()
    chain.check()


def test_released_weights_are_shared_out_anew():
    chain = Chain(5, 5)
    assert chain.weights.resident == 5
    chain.calls.clear()
    assert chain.weights.release() and not chain.weights.release()
    chain.device.limit_bytes -= 2 * BLOCK_BYTES
    chain.weights.of(0)
    chain.weights.settle()
    assert chain.weights.resident == 1


def test_a_binding_from_before_a_release_does_not_run_on_other_weights():
    chain = Chain(5, 2)
    chain.body()
    chain.weights.release()
    chain.device.limit_bytes += 2 * BLOCK_BYTES  # the old slots live as long as the calls that are bound to them
    chain.weights.settle()
    with pytest.raises(BackendError, match="have left the device since"):
        chain.body()


def test_too_little_for_two_blocks():
    with pytest.raises(DeviceMemoryError, match="--gpu_memory"):
        Chain(5, 1.9)
