"""A source that drives in another process: here is what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime.conditions.base import ConditionFrame, ConditionSource


@dataclass(frozen=True)
class Elsewhere:
    """A `ConditionSource` that gives no frames."""

    controls: tuple[str, ...]
    fps: float
    views: tuple[str, ...]
    size_px: tuple[int, int]
    told: Mapping[str, Any]

    @classmethod
    def of(cls, source: ConditionSource) -> Elsewhere:
        """What a source says."""
        return cls(tuple(source.controls), source.fps, tuple(source.views), source.size_px, dict(source.facts()))

    def facts(self) -> Mapping[str, Any]:
        return self.told

    def next(self, control: str | None) -> ConditionFrame:
        raise InputError("the source of this world is in another process, which has its frames")

    def state(self) -> None:
        """It is elsewhere."""

    def restore(self, state: Any) -> None:
        """It is elsewhere."""

    def close(self) -> None:
        """There is nothing to let go."""
