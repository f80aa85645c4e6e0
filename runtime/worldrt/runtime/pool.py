"""Buffers that the graphs of a chain share, by what they hold."""

from __future__ import annotations

from collections.abc import Mapping

from worldrt.engine.device import Buffer, Device
from worldrt.engine.tensors import TensorSpec


class Pool:
    """Buffers by role, allocated when first taken."""

    def __init__(self, device: Device, axes: Mapping[str, int], made: dict[str, Buffer] | None = None) -> None:
        self.device, self.axes = device, axes
        self.made: dict[str, Buffer] = {} if made is None else made

    def front(self, axes: Mapping[str, int]) -> Pool:
        """The beginnings of the same buffers, for smaller axes; where the batch comes first, its first rows."""
        return Pool(self.device, axes, self.made)

    def take(self, role: str, spec: TensorSpec) -> Buffer:
        shape = spec.resolve(self.axes)
        if role not in self.made:
            self.made[role] = self.device.empty(shape, spec.dtype)
        whole = self.made[role]
        return whole if whole.shape == shape else Buffer(whole.pointer, shape, spec.dtype, whole.owner, whole.device)
