"""Controls of a world: the nine names, what keys say, signals as text, and the random generator of The Matrix.

There is one control for each latent frame. Signals, generator and padding are those of the official code, to the draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldrt.engine.errors import InputError

VOCABULARY = ("D", "DL", "DR", "B", "BL", "BR", "N", "NL", "NR")
"""Straight ahead, back, or standing (neutral), each also with the wheel to the left or right."""
AUTO = "AUTO"
"""Of worlds that can: the car keeps its lane by itself."""
MOST_CONTROLS = 1_000_000
BASE_SECONDS = 4
"""The longest base video, which a stream goes on from."""
LATENTS_PER_SECOND = 4
FRAMES_PER_CONTROL = 4


class RandomControls:
    """An endless random signal: the first of `choices` and another in turn, each held for its `holds` at least.

    After the hold, each tick changes with a probability that grows by `growth`. One uniform number is drawn for a tick
    while that is below 1, and one choice on leaving the first. Raises `InputError`.
    """

    def __init__(
        self,
        seed: int,
        choices: Sequence[str] = ("D", "DR", "DL"),
        holds: Sequence[int] = (2, 2, 2),
        growth: float = 0.2,
    ) -> None:
        if len(choices) < 2 or len(choices) != len(holds):
            raise InputError(f"random controls: expected a hold for each of 2 choices or more, got {choices}, {holds}")
        check_seed(seed)
        self._choices, self._holds, self._growth = tuple(choices), tuple(holds), growth
        self.generator = np.random.default_rng(seed)
        self._now, self._held, self._chance = 0, 0, 0.0

    def __call__(self) -> str:
        """The control of the next latent frame."""
        if self._held >= self._holds[self._now]:
            self._chance += self._growth
            if self._chance >= 1 or self.generator.random() < self._chance:
                self._change()
        self._held += 1
        return self._choices[self._now]

    def _change(self) -> None:
        self._now = int(self.generator.integers(1, len(self._choices))) if self._now == 0 else 0
        self._held, self._chance = 0, 0.0


def check_seed(seed: int, name: str = "control seed") -> None:
    """Raises `InputError` for what the generator cannot take."""
    if not 0 <= seed < 2**64:
        raise InputError(f"{name}: expected 0 to 2^64 - 1, got {seed}")


def random_signal(length: int, seed: int) -> tuple[str, ...]:
    """The first controls of the random generator. Raises `InputError`."""
    if not 1 <= length <= MOST_CONTROLS:
        raise InputError(f"random controls: expected a length of 1 to {MOST_CONTROLS}, got {length}")
    draw = RandomControls(seed)
    return tuple(draw() for _ in range(length))


def parse_signal(text: str) -> tuple[str, ...]:
    """`D,D,DL,...` as controls. Raises `InputError` for an unknown one."""
    names = [name.strip().upper() for name in text.split(",")]
    for place, name in enumerate(names, 1):
        check_control(name, f"control signal, place {place}")
    if len(names) > MOST_CONTROLS:
        raise InputError(f"control signal: expected at most {MOST_CONTROLS} controls, got {len(names)}")
    return tuple(names)


def check_control(name: str, what: str = "control", names: Sequence[str] = VOCABULARY) -> None:
    """Raises `InputError` for a name that is none of `names`."""
    if name not in names:
        raise InputError(f"{what}: expected one of {', '.join(names)}, got '{name[:20]}'")


def padded(signal: Sequence[str], length: int, seed: int) -> tuple[str, ...]:
    """A signal that has at least so many controls: what is missing is random, from the beginning of the generator."""
    missing = length - len(signal)
    return tuple(signal) + (random_signal(missing, seed) if missing > 0 else ())


def base_frames(length_s: int) -> int:
    """Pixel frames of the base video of a world that lasts so long: 16 a second and one, of 4 seconds at most."""
    return 16 * min(length_s, BASE_SECONDS) + 1


def base_signal(signal: Sequence[str] | None, length_s: int, seed: int) -> tuple[str, ...]:
    """The controls of the base video, one for each latent frame: 4 `length_s` + 1, of 4 seconds at most. The signal
    may be longer; what it lacks is random, all of it where it is None. Raises `InputError`."""
    if length_s < 1:
        raise InputError(f"length: expected 1 second or more, got {length_s}")
    count = LATENTS_PER_SECOND * min(length_s, BASE_SECONDS) + 1
    return padded(signal or (), count, seed)[:count]


def stream_signal(
    signal: Sequence[str] | None, length_s: int, seed: int, *, window: int = 17, latents: int | None = None
) -> tuple[str, ...]:
    """The controls of a stream: of the `window` latent frames that it starts with, and of as many more as it makes, 4
    a second unless said otherwise. What the base video's controls do not cover is random, again from the generator's
    beginning. A signal that is longer stays so."""
    known = padded(signal or (), len(base_signal(signal, length_s, seed)), seed)
    return padded(known, window + (LATENTS_PER_SECOND * length_s if latents is None else latents), seed)
