"""Interleaved rounds of several contenders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from worldrt.benchmarks.statistics import order
from worldrt.benchmarks.worker import SlowError

Samples = dict[str, dict[str, list[float]]]
"""Seconds by contender and stage, one per round."""


class Asked(Protocol):
    """The parent's end of a contender."""

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]: ...


def interleave(
    contenders: Mapping[str, Asked],
    rounds: int,
    *,
    warmups: int = 1,
    progress: Callable[[str], None] = lambda _: None,
    limits_s: Mapping[str, float] | None = None,
    slow: dict[str, str] | None = None,
) -> Samples:
    """Run every contender once per round, in turning order; only one works at a time. Warm-ups are not counted.

    Who has a limit in `limits_s` and takes longer for a round is left out, and `slow` says so.
    """
    names: list[str] = list(contenders)
    samples: Samples = {name: {} for name in names}
    for index in range(warmups + rounds):
        for name in order(names, index):
            progress(f"round {index + 1 - warmups} of {rounds}: {name}" if index >= warmups else f"warm-up: {name}")
            limit = {"limit_s": limits_s[name]} if limits_s and name in limits_s else {}
            try:
                answer = contenders[name].ask("round", index=index, **limit)
            except SlowError as error:
                if slow is None:
                    raise
                slow[name] = str(error)
                names.remove(name)
                del samples[name]
                progress(str(error))
                continue
            if index >= warmups:
                for stage, seconds in answer["seconds"].items():
                    samples[name].setdefault(stage, []).append(seconds)
    return samples
