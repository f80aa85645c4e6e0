"""What a clip shows: a place, weather, a time of day, the car ahead, and what the driver does; and its caption.

Everything follows from one integer, so a clip is never stored: `sample(seed)` is the same scene everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

ACTIONS = ("D", "DL", "DR", "N")
"""Straight on, to the left, to the right, let it roll. One for every latent, that is for 4 frames."""
LEAST_HOLD = 2
"""Latents that an action is held at least."""

PLACES = {
    "forest": ("through a green forest", "on a forest road", "between the trees of a forest"),
    "city": ("along a street between tall buildings", "through the city", "along a city street"),
    "desert": ("across a sandy desert", "through the desert", "on a desert road"),
    "coast": ("along the coast of a blue sea", "along a coast road", "by the sea"),
    "mountains": ("through meadows below snowy mountains", "through the mountains", "on a mountain road"),
}
"""Ways to say it, the plainest first; an empty one leaves it out."""
WEATHERS = {
    "clear": ("under a clear sky", "in clear weather", ""),
    "rain": ("in heavy rain", "in the rain", "while rain falls"),
    "snow": ("while snow falls", "in the snow", "in heavy snow"),
    "fog": ("in thick fog", "in the fog", "in dense fog"),
}
TIMES = {
    "day": ("at noon", "by day", "in daylight", ""),
    "dusk": ("at sunset", "at dusk", "in the evening sun", "in the evening"),
    "night": ("at night", "in the dark", "on a dark night"),
}
COLOURS = {
    "red": (0.82, 0.10, 0.10),
    "blue": (0.12, 0.25, 0.85),
    "white": (0.93, 0.93, 0.93),
    "black": (0.07, 0.07, 0.08),
    "yellow": (0.93, 0.78, 0.10),
    "green": (0.10, 0.60, 0.22),
}
TURNS = {
    "D": ("The road runs straight ahead", "The car goes straight on", ""),
    "DL": ("The road bends to the left", "The car turns left", "It turns to the left"),
    "DR": ("The road bends to the right", "The car turns right", "It turns to the right"),
    "N": ("The traffic slows down", "The car slows down", "It slows down"),
}
_OPENINGS = (
    *("A {} car drives", "The camera follows a {} car", "A {} car ahead of us goes", "We drive behind a {} car"),
    *("A {} car", "Behind a {} car"),
)


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
        return self._said(_OPENINGS[self.seed % 4], lambda ways: ways[0])

    def reworded(self, number: int) -> str:
        """The caption in other words, as people who were not told the first may write it."""
        rng = np.random.default_rng([self.seed, 4, number])
        opening = _OPENINGS[int(rng.integers(len(_OPENINGS)))]
        return self._said(opening, lambda ways: ways[int(rng.integers(len(ways)))])

    def _said(self, opening: str, choose: Callable[[tuple[str, ...]], str]) -> str:
        parts = (PLACES[self.place], WEATHERS[self.weather], TIMES[self.time])
        first = " ".join([opening.format(self.colour), *filter(None, map(choose, parts))])
        turns = list(filter(None, (choose(TURNS[action]) for action in dict.fromkeys(self.actions))))
        then = ", then ".join(map(_lowered, turns, range(len(turns))))
        return f"{first}. {then}." if then else f"{first}."


def sample(seed: int, latents: int, *, steady: bool | None = None) -> Scene:
    """The scene of a seed. `steady` holds one action throughout; by default two clips of three do."""
    rng = np.random.default_rng([seed, 1])
    place, weather, time, colour = (str(rng.choice(list(names))) for names in (PLACES, WEATHERS, TIMES, COLOURS))
    if steady is None:
        steady = bool(rng.random() < 2 / 3)
    actions = [str(rng.choice(ACTIONS))] * latents if steady else walk(rng, latents)
    return Scene(seed, place, weather, time, colour, tuple(actions))


def walk(rng: np.random.Generator, latents: int) -> list[str]:
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
