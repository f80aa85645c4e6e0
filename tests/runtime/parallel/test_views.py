"""Windows of several views: in block form, and shared by ranks, they are those of the whole graph in one process."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from worldrt.runtime.live.layout_world import FRAME_BOUND
from worldrt.runtime.live.window import Seen, WindowDenoiser
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.window import SharedWindow
from worldrt.runtime.parallel.worker import work

from ..live.test_layout_world import stand_in, world_of

CLOSE = 1e-5
ROWS, TEXT = 9, 64


@pytest.fixture(scope="module")
def forms(stubs, tmp_path_factory):
    """`nano-opendwm` in whole and in block form, of the same weights; torch modules stand for its graphs."""
    modules, folders = {}, {}
    for form in ("whole", "block"):
        folders[form], made = stand_in(tmp_path_factory.mktemp(form), stubs, form)
        modules |= made
    with pytest.MonkeyPatch.context() as patch:
        stubs.run_by_torch(patch, modules)
        yield {form: Models.open([folder]) for form, folder in folders.items()}


def turns(frames, views=3):
    """What both branches of guidance see of some windows."""
    rng = np.random.default_rng(frames)

    def drawn(*shape):
        return rng.standard_normal((1, frames, *shape)).astype(np.float32)

    for _ in range(2):
        x = rng.standard_normal((1, 16, frames, views, 8, 14)).astype(np.float32)
        level = np.sort(rng.integers(0, 1000, (1, frames)), axis=1).astype(np.float32)
        camera = drawn(views, 11)
        yield [
            Seen(
                branch, drawn(views, ROWS, TEXT), x, level,
                {"camera": camera, "pooled": drawn(views, 56), "residual": drawn(2, views, 28, 64)},
            )
            for branch in ("cond", "uncond")
        ]  # fmt: skip


def close(made, expected):
    for some, whole in zip(made, expected, strict=True):
        for x0, other in zip(some, whole, strict=True):
            assert x0.shape == other.shape
            assert np.abs(x0 - other).max() <= CLOSE * np.abs(other).max()


def alone(models, cases):
    window = WindowDenoiser(models.denoiser("world"), FRAME_BOUND)
    return [window.x0s(case) for case in cases]


def test_blocks_that_are_cut_before_attention_are_the_whole_network(forms):
    cases = [case for frames in (1, 3) for case in turns(frames)]
    close(alone(forms["block"], cases), alone(forms["whole"], cases))
    spec = forms["block"].opener("world").bundle.manifest.denoisers["world"]
    assert spec.chain == ("block_0", "block_1", "block_2", "block_3", "block_1") and spec.blocks == 6


def test_guidance_as_one_batch_is_that_of_one_branch_after_the_other(forms):
    """Windows follow each other with the same text and layout, and with others."""
    models = forms["whole"]
    one_by_one = Models(models.bundles, replace(models.execution, guidance="sequential"))
    assert models.denoiser("world").batched and not one_by_one.denoiser("world").batched
    first, second = turns(3)
    moved = [replace(seen, x=seen.x + 1, level=seen.level / 2) for seen in first]
    reworded = [moved[0], replace(moved[1], text=second[1].text, conditions=second[1].conditions)]
    cases = [first, moved, reworded, second, first[::-1]]
    close(alone(models, cases), alone(one_by_one, cases))


@pytest.mark.parametrize(("size", "axis"), [(2, "frames"), (2, "views"), (3, None), (3, "frames")])
def test_views_and_frames_that_ranks_share_are_those_of_one(forms, all_well, size, axis):
    models = forms["block"]
    cases = list(turns(4))

    def rank(control):
        ranks = Ranks(control, cfg=1)
        ranks.axis = axis
        own = Models(models.bundles, replace(models.execution, ranks=ranks))
        if not isinstance(control, Host):
            work(own, control)
            return None
        window = SharedWindow(own.denoiser("world"), FRAME_BOUND, ranks, "world")
        made = [window.x0s(case) for case in cases]
        calls = sum(c.calls for c in ranks.communicators)
        control.end_orders()
        ranks.close()
        return made, calls

    made, calls = all_well(size, rank)[0]
    close(made, alone(models, cases))
    looks = 4 if axis == "frames" else 2
    assert calls == 4 * (looks + 1), "what each temporal or each cross-view block looks at, and x0"


def test_a_world_of_several_views_is_shared_by_ranks(forms, all_well):
    """A view each; sources, texts, layouts and pictures stay with rank 0."""

    def pictures(models):
        made = world_of(models, seed=3).generate("fog", 1, "D,DL", seed=3)
        try:
            return list(islice(made, 2))
        finally:
            made.close()

    def rank(control):
        ranks = Ranks(control, cfg=1)
        models = Models(forms["block"].bundles, replace(forms["block"].execution, ranks=ranks))
        if not isinstance(control, Host):
            work(models, control)
            return None
        made = pictures(models)
        control.end_orders()
        ranks.close()
        return made

    for shared, whole in zip(all_well(3, rank)[0], pictures(forms["block"]), strict=True):
        assert shared.std() > 1 and np.abs(shared.astype(int) - whole).max() <= 1
