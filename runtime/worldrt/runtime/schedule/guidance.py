"""Guidance as weighted evaluations: with and without a prompt, with more and less of the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from worldrt.runtime.schedule.law import Schedule, Term
from worldrt.runtime.schedule.rows import Branch


@dataclass(frozen=True)
class Segment:
    """A part of the history and a range of noise: its slots (all of them, or those listed, 0 the oldest) at level
    `start` are compared with the same at level `end`, which is T where it is not given."""

    weight: float
    slots: tuple[int, ...] | None = None
    start: int = 0
    end: int | None = None


def history_guidance(steps: int, history: int, segments: Iterable[Segment]) -> tuple[Term, ...]:
    """x0 = x0(no history) + sum_i w_i (x0(segment i at its start level) - x0(segment i at its end level)).

    What is no part of a segment is noise (level T = `steps`). One segment over everything with weight 1 is plain
    conditioning, a larger weight vanilla history guidance; parts in time or noise are its temporal and fractional
    forms. Song et al., History-guided video diffusion (2025). Equal terms are merged.
    """
    found = {(steps,) * history: 1.0}
    for segment in segments:
        slots = range(history) if segment.slots is None else segment.slots
        end = steps if segment.end is None else segment.end
        for sign, level in ((1.0, segment.start), (-1.0, end)):
            noise = tuple(level if slot in slots else steps for slot in range(history))
            found[noise] = found.get(noise, 0.0) + sign * segment.weight
    return tuple(Term(weight, noise=noise) for noise, weight in found.items() if weight)


def classifier_free(terms: Iterable[Term], scale: float) -> tuple[Term, ...]:
    """x0 = u + scale (c - u) of every term, with the models `cond` and `uncond`. Scale 1 needs no `uncond`."""
    return tuple(
        replace(term, weight=term.weight * weight, model=model)
        for term in terms
        for model, weight in (("cond", scale), ("uncond", 1 - scale))
        if weight
    )


def branches(schedule: Schedule, past: int, own: Sequence[int]) -> tuple[Branch, ...]:
    """The evaluations for a window of `past` history slots, the newest ones, and frames at the levels `own`. Terms that
    are equal on it are one."""
    weights: dict[tuple[str, tuple[int, ...], tuple[int, ...]], float] = {}
    older = schedule.history - past
    for term in schedule.terms:
        noise = term.noise[older:] if term.noise else (0,) * past
        label = term.label[older:] or tuple(level or schedule.history_label for level in noise)
        renoise = (*noise, *(0 for _ in own)) if any(noise) else ()
        key = (term.model, (*label, *own), renoise)
        weights[key] = weights.get(key, 0.0) + term.weight
    return tuple(Branch(weight, *key) for key, weight in weights.items() if weight)
