"""What a clip shows: a place, weather, a time of day, the car ahead, and what the driver does; and its caption.

Everything follows from one integer, so a clip is never stored: `sample(seed)` is the same scene everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ACTIONS = ("D", "DL", "DR", "N")
"""Straight on, to the left, to the right, let it roll. One for every latent, that is for 4 frames."""
LEAST_HOLD = 2
"""Latents that an action is held at least."""

PLACES = {
    "forest": "through a green forest",
    "city": "along a street between tall buildings",
    "desert": "across a sandy desert",
    "coast": "along the coast of a blue sea",
    "mountains": "through meadows below snowy mountains",
}
WEATHERS = {"clear": "under a clear sky", "rain": "in heavy rain", "snow": "while snow falls", "fog": "in thick fog"}
TIMES = {"day": "at noon", "dusk": "at sunset", "night": "at night"}
COLOURS = {
    "red": (0.82, 0.10, 0.10),
    "blue": (0.12, 0.25, 0.85),
    "white": (0.93, 0.93, 0.93),
    "black": (0.07, 0.07, 0.08),
    "yellow": (0.93, 0.78, 0.10),
    "green": (0.10, 0.60, 0.22),
}
TURNS = {
    "D": "The road runs straight ahead",
    "DL": "The road bends to the left",
    "DR": "The road bends to the right",
    "N": "The traffic slows down",
}
_OPENINGS = ("A {} car drives", "The camera follows a {} car", "A {} car ahead of us goes", "We drive behind a {} car")


@dataclass(frozen=True)
class Scene:
    """One clip. `actions` has one entry for each latent: the first frame, then every 4 frames."""

    seed: int
    place: str
    weather: str
    time: str
    colour: str
    actions: tuple[str, ...]

    @property
    def caption(self) -> str:
        """`A red car drives through a green forest in heavy rain at night. The road bends to the left.`"""
        opening = _OPENINGS[self.seed % len(_OPENINGS)].format(self.colour)
        where = f"{PLACES[self.place]} {WEATHERS[self.weather]} {TIMES[self.time]}"
        turns = dict.fromkeys(TURNS[action] for action in self.actions)
        return f"{opening} {where}. " + ", then ".join(_lowered(turn, i) for i, turn in enumerate(turns)) + "."


def sample(seed: int, latents: int, *, steady: bool | None = None) -> Scene:
    """The scene of a seed. `steady` holds one action throughout; by default two clips of three do."""
    rng = np.random.default_rng([seed, 1])
    place, weather, time, colour = (str(rng.choice(list(names))) for names in (PLACES, WEATHERS, TIMES, COLOURS))
    if steady is None:
        steady = bool(rng.random() < 2 / 3)
    actions = [str(rng.choice(ACTIONS))] * latents if steady else _walk(rng, latents)
    return Scene(seed, place, weather, time, colour, tuple(actions))


def _walk(rng: np.random.Generator, latents: int) -> list[str]:
    """Actions that change now and then, each held for `LEAST_HOLD` latents or more."""
    actions: list[str] = []
    while len(actions) < latents:
        others = [action for action in ACTIONS if not actions or action != actions[-1]]
        actions += [str(rng.choice(others))] * int(rng.integers(LEAST_HOLD, LEAST_HOLD + 4))
    return actions[:latents]


def action_of_frame(actions: Sequence[str], frame: int) -> str:
    """The action in force at a frame: the first latent is one frame, the others are four."""
    return actions[min((frame + 3) // 4, len(actions) - 1)]


def _lowered(sentence: str, index: int) -> str:
    return sentence if index == 0 else sentence[0].lower() + sentence[1:]
