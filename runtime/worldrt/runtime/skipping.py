"""Sampling with shortcuts: rows without an evaluation, and rows without the second text."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.runtime.bound import ALL, FIRST, REST, Float64
from worldrt.runtime.change import Change
from worldrt.runtime.shortcuts import Shortcuts
from worldrt.runtime.steps import Steps
from worldrt.runtime.updates import bind_update


class Skipping:
    """The step of a run with shortcuts. `evaluations` counts rows by what was done: `guided`, `alone`, `reused`."""

    def __init__(self, steps: Steps, shortcuts: Shortcuts) -> None:
        self.evaluations = {"guided": 0, "alone": 0, "reused": 0}
        self._steps = steps
        self._guidance = _Guidance(steps, shortcuts)
        self._cache = _Cache(steps, shortcuts.step_cache) if _cacheable(steps, shortcuts) else None

    def step(self, index: int) -> None:
        """Row i of the table."""
        steps, guided = self._steps, self._guidance.wanted(index)
        steps.begin(index)
        if self._cache is not None and self._cache.reuse(index, guided):
            self.evaluations["reused"] += 1
            return
        self.evaluations["guided" if guided else "alone"] += 1
        if self._cache is None:
            steps.evaluate(guided=guided)
        else:
            self._cache.evaluate(index, guided)
        if guided:
            self._guidance.look()


def _cacheable(steps: Steps, shortcuts: Shortcuts) -> bool:
    """A table that adds noise has steps too large to leave one out."""
    return bool(shortcuts.step_cache) and not steps.table.fresh_noise


class _Guidance:
    """Which rows are guided. The similarity is that of the two predictions of x0: near the noise they differ as the
    texts do, and near the data both are x, whereas predicted noise is alike at both ends. Known frames say nothing."""

    def __init__(self, steps: Steps, shortcuts: Shortcuts) -> None:
        self._bound, self._levels = steps.bound, steps.table.levels
        self._interval, self._least = shortcuts.guidance_interval, shortcuts.adaptive_guidance
        self._over = self._bound.uncond is None
        self._unknown: np.ndarray[Any, np.dtype[np.bool_]] | None = None

    def wanted(self, index: int) -> bool:
        low, high = self._interval or (0.0, np.inf)
        return not self._over and bool(low <= self._levels[index] <= high)

    def look(self) -> None:
        """End guidance where the predictions of the last row are as similar as that in every clip."""
        if self._least is None or self._bound.uncond is None:
            return
        download = self._bound.device.download
        cond, uncond = (download(x0).astype(np.float64) for x0 in (self._bound.cond, self._bound.uncond))
        if self._unknown is None:
            mask = self._bound.inputs.get("mask")
            known = np.zeros((len(cond), cond.shape[2])) if mask is None else download(mask)
            self._unknown = known[: len(cond), None, :, None, None] < 0.5
        sums = products(cond * self._unknown, uncond * self._unknown)
        self._over = cosine(self._bound.summed(sums)) >= self._least


def products(one: Float64, two: Float64) -> Float64:
    """(3, N): the sums of a b, a a and b b of the rows of two arrays (N, ...)."""
    a, b = (array.reshape(len(array), -1) for array in (one, two))
    return np.stack([np.sum(a * b, 1), np.sum(a * a, 1), np.sum(b * b, 1)])


def cosine(sums: Float64) -> float:
    """The smallest cosine similarity of rows with these `products`."""
    both, first, second = sums
    with np.errstate(all="ignore"):
        return float((both / np.sqrt(first * second)).min())


class _Cache:
    """Rows that need no evaluation.

    After an evaluation the noise in x, e = (x - x0) / sigma with the guided x0, is kept. A row that is left out takes
    x0' = x' - sigma' e: the direction dx/dsigma of the flow is held. Measured against keeping x0 or the network's
    output, this errs least. The first and the last row are always evaluated, and a row after guidance began or ended.
    """

    def __init__(self, steps: Steps, threshold: float) -> None:
        bound, levels = steps.bound, steps.table.levels
        self._steps, self._threshold, self._total = steps, threshold, 0.0
        self._change = Change(bound, levels)
        self._guided: bool | None = None  # of the last evaluation
        none = np.zeros_like(levels)
        self._keep_rows = steps.rows("keep noise", np.stack((1 / levels, -1 / levels, none, none), 1))
        self._reuse_rows = steps.rows("reuse noise", np.stack((none + 1, -levels, none, none), 1))
        device, noise, x = bound.device, bound.keep("kept noise", bound.x.shape, "float32"), bound.x
        self._keep = {
            guided: bind_update(
                device, self._keep_rows.place, x, bound.cond, uncond=uncond, guidance=guidance, out=noise
            )
            for guided, uncond, guidance in ((True, bound.uncond, steps.guidance), (False, None, 0.0))
        }
        self._estimate = bind_update(device, self._reuse_rows.place, x, noise, out=bound.cond)

    def reuse(self, index: int, guided: bool) -> bool:
        """Whether the row is done without an evaluation. Else the first block, where that decides, has been run."""
        last = index == len(self._steps.table) - 1
        if last or self._guided is None or guided != self._guided:
            self._look(index, guided, last=last)
            return False
        self._total += self._look(index, guided)
        if not self._total < self._threshold:
            return False
        self._reuse_rows.set(index)
        self._steps.bound.step(("reuse", self._steps.key), self._body)
        return True

    def _look(self, index: int, guided: bool, *, last: bool = False) -> float:
        """The change since the last evaluation."""
        if last:
            return 0.0
        if self._change.wants_first_block:
            bound = self._steps.bound
            bound.step(("first", guided), lambda: bound.run(guided=guided, part=FIRST))
        return self._change.since_kept(index)

    def _body(self) -> None:
        self._estimate()
        self._steps.update(guided=False)

    def evaluate(self, index: int, guided: bool) -> None:
        """Do what is left of the row's evaluation, and keep the noise."""
        last = index == len(self._steps.table) - 1
        part = REST if self._change.wants_first_block and not last else ALL
        self._keep_rows.set(index)
        self._change.keep()
        self._total, self._guided = 0.0, guided
        self._steps.evaluate(guided=guided, part=part, before=self._keep[guided])
