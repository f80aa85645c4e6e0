"""Kinds of road users, their sizes, and how often they are met."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Sizes in metres; `share` of the traffic; `hurry` is what it makes of a speed limit."""

    label: str
    length_m: float
    width_m: float
    height_m: float
    share: float
    hurry: float = 1.0

    @property
    def half_m(self) -> tuple[float, float, float]:
        return self.length_m / 2, self.width_m / 2, self.height_m / 2

    @property
    def offset_m(self) -> tuple[float, float, float]:
        """The middle of its box, above the point where it stands."""
        return 0.0, 0.0, self.height_m / 2


EGO = Kind("car", 4.9, 2.1, 1.5, 0.0)
VEHICLES = (
    Kind("car", 4.6, 1.9, 1.5, 0.62),
    Kind("van", 5.4, 2.1, 2.2, 0.12, 0.95),
    Kind("truck", 8.0, 2.5, 3.2, 0.1, 0.85),
    Kind("bus", 10.5, 2.6, 3.1, 0.06, 0.8),
    Kind("motorcycle", 2.2, 0.8, 1.6, 0.06, 1.05),
    Kind("bicycle", 1.8, 0.6, 1.7, 0.04, 0.5),
)
WALKER = Kind("pedestrian", 0.5, 0.5, 1.75, 0.0)
