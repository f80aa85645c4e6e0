"""Road marks, kerbs and crosswalks: polylines of several kinds and their colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from worldrt.runtime.scene.boxes import Color
from worldrt.runtime.scene.poses import Float64
from worldrt.runtime.scene.projection import project

KINDS = ("curb", "solid", "broken", "solid solid", "broken solid", "solid broken", "broken broken", "crosswalk")
"""Of lines, in the order in which they are drawn: names of OpenDRIVE's road marks, and of an object."""
COLORS: Mapping[str, Color] = MappingProxyType(
    dict.fromkeys(KINDS, (0, 255, 0)) | {"curb": (0, 0, 255), "crosswalk": (255, 0, 0)}
)


@dataclass(frozen=True)
class LineStyle:
    """How lines are drawn. `reach_m`: the depth up to which they are seen. Kinds without a colour are not drawn."""

    reach_m: float = 65.0
    pen_px: int = 3
    colors: Mapping[str, Color] = field(default_factory=lambda: COLORS)


class MapLines:
    """All lines of a map as segments, in the order in which they are drawn."""

    def __init__(self, polylines: Mapping[str, Sequence[Float64]]) -> None:
        """`polylines`: points (n, 3) in the world, by kind."""
        points = [line for lines in polylines.values() for line in lines if len(line) > 1]
        kinds = [kind for kind, lines in polylines.items() for line in lines for _ in line[1:]]
        self.begin: Float64 = np.concatenate([np.empty((0, 3)), *(line[:-1] for line in points)])
        self.end: Float64 = np.concatenate([np.empty((0, 3)), *(line[1:] for line in points)])
        self.kinds: np.ndarray[Any, Any] = np.array(kinds, dtype=object)

    def segments(self, image_from_world: Float64, style: LineStyle) -> tuple[Float64, list[Color]]:
        """The lines (m, 4) in pixels that a camera sees, and the colour of each."""
        colored = [kind for kind in dict.fromkeys(self.kinds) if kind in style.colors]
        chosen = np.flatnonzero(np.isin(self.kinds, colored)) if colored else np.empty(0, np.intp)
        turn, move = image_from_world[:3, :3].T, image_from_world[:3, 3]
        lines, which = project(self.begin[chosen] @ turn + move, self.end[chosen] @ turn + move, far_m=style.reach_m)
        return lines, [style.colors[kind] for kind in self.kinds[chosen[which]]]
