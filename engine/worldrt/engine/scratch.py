"""Scratch memory that all engines of a device share: they run one after another on its stream."""

from __future__ import annotations

from worldrt.engine.device import Buffer, Device


class Scratch:
    """One buffer, as large as the largest need so far.

    `generation` counts its allocations: what holds `pointer` must take it anew when the number has changed.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memory: Buffer | None = None
        self.generation = 0

    @property
    def pointer(self) -> int:
        """Its address; 0 where no engine needs any."""
        return 0 if self._memory is None else self._memory.pointer

    @property
    def nbytes(self) -> int:
        return 0 if self._memory is None else self._memory.nbytes

    def reserve(self, nbytes: int) -> None:
        """Have at least so many bytes. What lay there is lost; work on it is waited for before it goes.

        Raises `DeviceMemoryError`.
        """
        if nbytes <= self.nbytes:
            return
        self.drop()
        self._memory = self._device.empty((nbytes,), "uint8")
        self.generation += 1

    def drop(self) -> None:
        """Give the memory back; who needs it again reserves it again."""
        if self._memory is not None:
            self._device.synchronize()
            self._memory = None
            self.generation += 1
