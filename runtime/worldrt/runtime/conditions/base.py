"""What a source of conditions in this folder holds, and what all sources promise.

    source = open_source("drive", seed=0, fps=10)
    frame = source.next("DL")                   # one tick: drive ahead, the wheel to the left
    frame = source.next(AUTO)                   # the car keeps its lane by itself
    frame.images["box"], frame.text, frame.cameras

World frames are right-handed in metres: x east, y north, z up. A vehicle looks along its x, y is to its left; its
origin is the middle of the rear axle on the ground. A camera looks along its z, x is to its right and y down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from worldrt.engine import plugin
from worldrt.engine.errors import InputError
from worldrt.runtime.live.controls import AUTO, VOCABULARY, check_control

Images = np.ndarray[Any, np.dtype[np.uint8]]
Float64 = np.ndarray[Any, np.dtype[np.float64]]
Warn = Callable[[str], None]
PACKAGE = "worldrt.runtime.conditions"
MOST_FPS = 100
CONTROLS = (*VOCABULARY, AUTO)


@dataclass(frozen=True, eq=False)
class Cameras:
    """V cameras on a vehicle: `intrinsics` (V, 3, 3) in pixels of the condition images, `transforms` (V, 4, 4) from
    the camera to the vehicle, both float64."""

    names: tuple[str, ...]
    intrinsics: Float64
    transforms: Float64


@dataclass(frozen=True, eq=False)
class ConditionFrame:
    """What one frame of V views is conditioned on.

    `images`: uint8 RGB (V, h, w, 3) by kind, `box` and `map`, black where nothing is drawn. `ego`: float64 (4, 4), from
    the vehicle to the world. `text`: a prompt for each view. `fps`: of the frames of this stream.
    """

    index: int
    images: Mapping[str, Images]
    cameras: Cameras
    ego: Float64
    text: tuple[str, ...]
    fps: float

    @property
    def views(self) -> int:
        return len(self.text)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the condition images in pixels, that of the cameras."""
        height, width = next(iter(self.images.values())).shape[1:3]
        return int(width), int(height)


class ConditionSource(Protocol):
    """Makes the conditions of one stream, frame after frame. One thread at a time calls it."""

    @property
    def controls(self) -> Sequence[str]:
        """The controls that it knows, `AUTO` among them."""
        ...

    @property
    def fps(self) -> float:
        """Frames for each second of the world that it shows."""
        ...

    @property
    def views(self) -> Sequence[str]:
        """The names of its cameras, in the order of the views."""
        ...

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) of the condition images."""
        ...

    def facts(self) -> Mapping[str, Any]:
        """What must be the same, besides the seed, for the same controls to give the same frames, as JSON values."""
        ...

    def next(self, control: str | None) -> ConditionFrame:
        """Go on by one frame under a control; None is `AUTO`. Raises `InputError`, also for a simulator that
        is gone; asked again, it connects again."""
        ...

    def state(self) -> Any:
        """All that the next frames depend on; it stays as it is. None for a world outside of this process."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from a state; a world outside of this process cannot be turned back, and simply goes on."""
        ...

    def close(self) -> None:
        """Let everything go. A second time does nothing."""
        ...


class SourceModule(Protocol):
    """The function of a source module."""

    def open_source(self, config: Mapping[str, Any], *, fps: float | None, seed: int, warn: Warn) -> ConditionSource:
        """`warn` is told, in a line, what becomes of a connection.

        Raises `InputError` for a setting that cannot be used, or for what is not installed or not there.
        """
        ...


def open_source(
    name: str,
    config: Mapping[str, Any] | None = None,
    *,
    fps: float | None = None,
    seed: int = 0,
    warn: Warn = lambda text: None,
) -> ConditionSource:
    """The source of a name (`drive`: the simulator that is built in; `carla`: a CARLA simulator that runs).

    `config`: settings, those of a configuration file; `fps` in place of the configuration's. `seed` decides what is
    drawn by chance. `warn` is told, in a line, what becomes of a connection. Raises `InputError` for an unknown name
    and what the source raises.
    """
    if fps is not None and not 0 < fps <= MOST_FPS:
        raise InputError(f"fps: expected above 0 and at most {MOST_FPS}, got {fps:g}")
    module: SourceModule = plugin.load(PACKAGE, name)
    return module.open_source(config or {}, fps=fps, seed=seed, warn=warn)


def driven(control: str | None) -> str | None:
    """A control of somebody who drives; None for `AUTO`. Raises `InputError` for one that is not known."""
    if control is None or control == AUTO:
        return None
    check_control(control, names=CONTROLS)
    return control
