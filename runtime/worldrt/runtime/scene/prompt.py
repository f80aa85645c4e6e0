"""What a view shows, in words: time of day, weather, surroundings, and the things in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

Labels = np.ndarray[Any, np.dtype[np.uint8]]

ROADS = 1
NAMES = MappingProxyType(
    {
        ROADS: "roads",
        3: "building",
        4: "wall",
        5: "fence",
        7: "traffic light",
        8: "traffic sign",
        9: "trees",
        12: "pedestrian",
        13: "rider",
        14: "car",
        15: "truck",
        16: "bus",
        17: "train",
        18: "motorcycle",
        19: "bicycle",
        26: "bridge",
    }
)
"""Of the labels of CARLA's semantic cameras (those of Cityscapes), as far as a prompt names them."""
LEAST_SHARE = 0.005
"""Of a picture, that a label must exceed to be named."""


@dataclass(frozen=True)
class Weather:
    """As CARLA has it: the sun's height in degrees, the rest from 0 to 100."""

    sun_altitude_deg: float = 45.0
    precipitation: float = 0.0
    fog_density: float = 0.0
    cloudiness: float = 10.0

    @property
    def time_name(self) -> str:
        """Of the day."""
        return "daytime" if self.sun_altitude_deg > 5 else "sunset" if self.sun_altitude_deg > -5 else "night"

    @property
    def name(self) -> str:
        if self.precipitation > 30:
            return "rainy"
        if self.fog_density > 50:
            return "foggy"
        return "overcast" if self.cloudiness > 70 else "cloudy" if self.cloudiness > 30 else "clear sky"


def prompt_of(weather: Weather, surroundings: str, things: Sequence[str]) -> str:
    """The prompt that OpenDWM was trained on. No full stop is put after `surroundings`; without things it ends in
    " ."."""
    return f"{weather.time_name}. {weather.name}. {surroundings} {', '.join(things)}."


def things_in(labels: Labels, least_share: float = LEAST_SHARE) -> list[str]:
    """The names of labels (h, w) that cover more than a share of the picture, in the order in which rows show them."""
    found, first, counts = np.unique(labels, return_index=True, return_counts=True)
    least = labels.size * least_share
    seen = sorted(
        (place, int(label)) for label, place, count in zip(found, first, counts, strict=True) if count > least
    )
    return [NAMES[label] for _, label in seen if label in NAMES]
