"""Windows of The Matrix that several ranks share equal those of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldrt.runtime.live.window import WindowDenoiser
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.window import SharedWindow
from worldrt.runtime.parallel.worker import work

from ..parallel.conftest import together

CLOSE = 1e-5


def turns(frames):
    """Windows of both texts in turn: branch, text, x, level, control."""
    rng = np.random.default_rng(frames)
    texts = rng.standard_normal((2, 7, 128)).astype(np.float32)
    for turn in range(3):
        x = rng.standard_normal((1, 16, frames, 4, 6)).astype(np.float32)
        level = np.sort(rng.integers(0, 1000, (1, frames)), axis=1).astype(np.float32)
        control = rng.standard_normal((1, frames, 48)).astype(np.float32)
        yield ("cond", "uncond")[turn % 2], texts[turn % 2], x, level, {"control": control}


@pytest.mark.parametrize(("size", "lengths"), [(2, (5,)), (3, (2, 4))])
def test_a_window_that_ranks_share_is_that_of_one(nano_matrix_blocks, stubs, monkeypatch, size, lengths):
    stubs.run_by_torch(monkeypatch, nano_matrix_blocks.modules)
    models = Models.open([nano_matrix_blocks.folder])
    alone = WindowDenoiser(models.denoiser("world"), {"control"})
    cases = [(frames, turn) for frames in lengths for turn in turns(frames)]
    expected = [alone.x0(*turn) for _, turn in cases]

    def rank(control):
        ranks = Ranks(control)
        own = Models(models.bundles, replace(models.execution, ranks=ranks))
        if not isinstance(control, Host):
            work(own, control)
            return None
        window = SharedWindow(own.denoiser("world"), {"control"}, ranks, "world")
        made = [window.x0(*turn) for _, turn in cases]
        control.end_orders()
        return made

    results = together(size, rank)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    for (frames, _), x0, whole in zip(cases, results[0], expected, strict=True):
        assert x0.shape == whole.shape
        assert np.abs(x0 - whole).max() <= CLOSE * np.abs(whole).max(), frames
