"""A world of known length and controls, made as fast as the models can: no clock, no dropped frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from worldrt.engine.errors import InputError
from worldrt.runtime.live.clock import Clock
from worldrt.runtime.live.controls import base_signal, check_control, parse_signal, stream_signal
from worldrt.runtime.live.hooks import Log
from worldrt.runtime.live.model import LiveModel, Picture
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written
from worldrt.runtime.live.streams import latents_per_second
from worldrt.runtime.safety.base import Guard

LONGEST_S = 24 * 3600
CONTROL_SEED = 42


def signals(
    model: LiveModel, length_s: int, control_signal: str | Sequence[str] | None, control_seed: int = CONTROL_SEED
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The controls of the base video and of the stream, by The Matrix's rules. Raises `InputError`."""
    if not 1 <= length_s <= LONGEST_S:
        raise InputError(f"length: expected 1 to {LONGEST_S} seconds, got {length_s}")
    given = parse_signal(control_signal) if isinstance(control_signal, str) else control_signal
    for name in given or ():
        check_control(name, "control signal", model.controls)
    base, s = base_signal(given, length_s, control_seed), model.schedule
    latents = length_s * latents_per_second(model)
    return base, stream_signal(given, length_s, control_seed, window=s.given + s.slots, latents=latents)


def frames_of(model: LiveModel, length_s: int) -> int:
    """Pictures of a world that lasts so long."""
    return length_s * latents_per_second(model) * model.frames_at_once // model.schedule.group


def generate(
    model: LiveModel,
    prompt: str,
    length_s: int,
    control_signal: str | Sequence[str] | None = None,
    *,
    control_seed: int = CONTROL_SEED,
    seed: int = 0,
    clock: Clock | None = None,
    log: Log | None = None,
    guard: Guard | None = None,
) -> Iterator[Picture]:
    """Frames of a world that lasts so many seconds, of 4 latent frames each.

    `control_signal`: a control for each latent frame, `D,D,DL,...`, those of the frames that the world starts with
    first; what is missing is random by `control_seed`, all of it for None. `seed` is that of all noise. `guard` looks
    at the prompt and at every frame. Raises `InputError`, or `BlockedError`, before anything runs; `BlockedError` from
    the frames at the first one that is refused.
    """
    base, stream = signals(model, length_s, control_signal, control_seed)
    session = WorldSession(
        model,
        seed=seed,
        pace=PaceOptions(None),
        clock=clock,
        steering=Written(stream, -model.schedule.given, endless=True),
        base=base,
        log=log,
        guard=guard,
    )
    session.start(prompt)
    return _frames(session, frames_of(model, length_s))


def _frames(session: WorldSession, count: int) -> Iterator[Picture]:
    try:
        yield from (frame.picture for frame in islice(session.frames(), count))
    finally:
        session.stop()
