"""What a source of conditions says of itself from its settings alone."""

from __future__ import annotations

from collections.abc import Sequence

from worldrt.runtime.conditions._settings import Settings
from worldrt.runtime.conditions.base import CONTROLS


class Configured:
    """The part of a `ConditionSource` that its settings decide."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def controls(self) -> Sequence[str]:
        return CONTROLS

    @property
    def fps(self) -> float:
        return self._settings.fps

    @property
    def views(self) -> Sequence[str]:
        return tuple(camera.name for camera in self._settings.cameras)

    @property
    def size_px(self) -> tuple[int, int]:
        camera = self._settings.cameras[0]
        return camera.width_px, camera.height_px
