"""Which models are loaded at a time. On a GPU whose memory is short, each lives only while its part of a run lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from worldrt.engine.bundle import Component
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import Device
from worldrt.engine.errors import DeviceMemoryError
from worldrt.engine.jobs import weight_bytes
from worldrt.engine.weights import WeightStore

T = TypeVar("T")


class Loadable(Protocol):
    """A model that can let its graphs and weights go, and loads them again when it is used."""

    @property
    def loaded(self) -> bool: ...

    def unload(self) -> None: ...


def component_bytes(component: Component, store: WeightStore) -> int:
    """Bytes of all weights of a component as they are stored."""
    return sum(weight_bytes(g, store, i) for name, g in component.graphs.items() for i in component.instances(name))


def let_go(models: Mapping[Any, Loadable], device: Device, keep: object) -> bool:
    """Unload all but one; False where nothing was loaded. Scratch memory goes too: the next ones may need less."""
    others = [model for key, model in models.items() if key != keep and model.loaded]
    for model in others:
        model.unload()
    if others and isinstance(device, CudaDevice):
        device.scratch.drop()
    return bool(others)


def again_with_room(make: Callable[[], T], room: Callable[[], bool]) -> T:
    """`make()`, and once more where memory was short and `room` could make some."""
    try:
        return make()
    except DeviceMemoryError as error:
        short: DeviceMemoryError | None = error.with_traceback(None)  # it would keep alive what was half made
    if not room():
        assert short is not None
        raise short
    short = None
    return make()
