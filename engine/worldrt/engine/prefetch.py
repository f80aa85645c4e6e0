"""The weights of like blocks on a GPU: all where they fit, else some, and the rest copied in as they are needed.

The first blocks stay on the device. The weights of the others wait in pinned host memory and come, on the device's copy
stream, into two slots in turn: block i + 2 is copied while block i + 1 computes. The first two are copied again at the
end of a step, beside its last blocks, so that every step begins with them in place. A step ends with no copy under way,
so that it can be captured as one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate

import numpy as np

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import Buffer
from worldrt.engine.errors import BackendError
from worldrt.engine.tensors import size_bytes

SLOTS = 2
ALIGNMENT_BYTES = 256  # of every tensor that an engine is given
RESERVE_BYTES = 256 << 20  # left to the library and the driver where no limit is set
Weights = Mapping[str, Buffer]


class BlockWeights:
    """The weights of the instances of a block graph, or of several such graphs, given in host memory by name.

    Until `settle` is called nothing but slots is there, and `of` gives a slot for every block, so that everything else
    can be bound and allocated first. Then the memory that is left is shared out.
    """

    def __init__(self, device: CudaDevice, instances: Sequence[Weights]) -> None:
        self._device, self._host = device, instances
        self._layouts = [_layout(weights) for weights in instances]
        self._sizes = [end for _, end in self._layouts]
        self.block_bytes = max(self._sizes)  # of a slot, which takes any block
        self._resident: list[Buffer] = []
        self._pinned: list[Buffer] = []
        self._slots: list[Buffer] = []
        self.settled = self._primed = False
        self.generation = 0  # counts releases: what was bound or captured before one may not run after it
        self._free = [device.event() for _ in range(SLOTS)]
        self._copied = [device.event() for _ in range(SLOTS)]
        self._under_way: set[int] = set()

    @property
    def resident(self) -> int:
        """How many blocks stay on the device."""
        return len(self._resident)

    def of(self, block: int) -> dict[str, Buffer]:
        """Where the weights of a block are when it runs."""
        if self.settled and block < self.resident:
            return self._tensors(block, self._resident[block])
        self._have_slots()
        return self._tensors(block, self._slots[max(0, block - self.resident) % len(self._slots)])

    def settle(self) -> None:
        """Share out the memory that the device has left. Raises `DeviceMemoryError`."""
        if self.settled:
            return
        self._have_slots()
        room = self._device.free_bytes() - (RESERVE_BYTES if self._device.limit_bytes is None else 0)
        count = len(self._host)
        if room + len(self._slots) * self.block_bytes >= sum(self._sizes):
            self._slots, resident = [], count
        else:
            resident = sum(total <= room for total in accumulate(self._sizes))
        self._resident = [self._uploaded(block) for block in range(resident)]
        self._pinned = [self._pin(block) for block in range(resident, count)]
        self.settled, self._primed = True, False

    def release(self) -> bool:
        """Let all memory go, to be settled anew; False where there was none."""
        held = self.settled or bool(self._slots)
        self.generation += 1
        self._resident, self._pinned, self._slots, self.settled = [], [], [], False
        return held

    def call(self, block: int, run: Callable[[], None]) -> Callable[[], None]:
        """A block's run that waits for its weights, and has the next ones of its slot fetched when it is done. It
        serves until `release`."""
        if block < self.resident or not self.settled:
            return run
        return partial(self._run, self.generation, block - self.resident, run)

    def prime(self) -> None:
        """Have the first blocks in their slots, as a captured step wants them; one that failed leaves others there."""
        if self._pinned and not self._primed:
            self.begin()
            self.end()

    def begin(self) -> None:
        """At the start of every step: the first blocks are in their slots, or are fetched."""
        self._under_way.clear()
        for slot in range(len(self._slots) if self._pinned and not self._primed else 0):
            self._fetch(slot, slot)
        self._primed = False

    def end(self) -> None:
        """At the end of every step: wait, on the device, for what is still copied."""
        for slot in self._under_way:
            self._copied[slot].hold(self._device.stream)
        self._under_way.clear()
        self._primed = True

    def _run(self, generation: int, index: int, run: Callable[[], None]) -> None:
        if generation != self.generation:
            raise BackendError("the weights of this binding have left the device since; bind the denoiser again")
        slot = index % len(self._slots)
        if slot in self._under_way:
            self._copied[slot].hold(self._device.stream)
            self._under_way.discard(slot)
        run()
        following = index + len(self._slots)
        following = following if following < len(self._pinned) else slot
        if following != index:
            self._fetch(following, slot)

    def _fetch(self, index: int, slot: int) -> None:
        """Copy a streamed block into a slot once the work given so far is done with it."""
        self._free[slot].record(self._device.stream)
        self._free[slot].hold(self._device.copy_stream)
        pinned = self._pinned[index]
        self._device.copy_beside(self._slots[slot][: pinned.nbytes], pinned)
        self._copied[slot].record(self._device.copy_stream)
        self._under_way.add(slot)

    def _have_slots(self) -> None:
        if not self._slots:
            slots = range(min(SLOTS, len(self._host)))
            self._slots = [self._device.empty((self.block_bytes,), "uint8") for _ in slots]

    def _uploaded(self, block: int) -> Buffer:
        memory = self._device.empty((self._sizes[block],), "uint8")
        for name, target in self._tensors(block, memory).items():
            self._device.upload(target, self._host[block][name].numpy())
        return memory

    def _pin(self, block: int) -> Buffer:
        memory = self._device.pinned((self._sizes[block],), "uint8")
        for name, target in self._tensors(block, memory).items():
            np.copyto(target.numpy(), self._host[block][name].numpy(), casting="no")
        return memory

    def _tensors(self, block: int, memory: Buffer) -> dict[str, Buffer]:
        return {
            name: Buffer(memory.pointer + offset, like.shape, like.dtype, memory.owner, memory.device)
            for name, (offset, like) in self._layouts[block][0].items()
        }


def _layout(weights: Weights) -> tuple[dict[str, tuple[int, Buffer]], int]:
    """Offsets of tensors that lie one after another, and the bytes of all."""
    offsets, end = {}, 0
    for name, buffer in weights.items():
        offsets[name] = end, buffer
        end += -(-size_bytes(buffer.shape, buffer.dtype) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return offsets, end
