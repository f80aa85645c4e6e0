"""Ranks that exchange frames for heads around attention make what one rank makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.parallel.checks import check_shared
from worldrt.runtime.parallel.ranks import Ranks

from .clips import CASES, GRID, by_torch, check, of_ranks, one_rank


@pytest.fixture(scope="module")
def opener(stubs, tmp_path_factory):
    """The tiny denoiser with six heads and attention cut out of its blocks."""
    with pytest.MonkeyPatch.context() as patch:
        config = replace(stubs.tiny_weights(3)[0], width=96, heads=6)
        weights = {key: 0.5 * value for key, value in stubs.random_weights(config).items()}
        yield by_torch(stubs, patch, tmp_path_factory, config, weights, cut=True)


@pytest.fixture(scope="module")
def single(opener):
    return one_rank(opener)


@pytest.fixture
def shared(all_well, opener):
    return lambda size, cases, **chosen: of_ranks(all_well, opener, size, cases, **chosen)


@pytest.mark.parametrize("mode", ["ulysses", "gather"])
@pytest.mark.parametrize(("size", "cfg", "frames"), [(2, 1, (1, 3)), (3, 1, (4,)), (4, 2, (5,))])
def test_heads_are_shared_instead_of_keys_and_values(single, shared, size, cfg, frames, mode):
    check(single, shared, size, [(count, 7.0) for count in frames], cfg=cfg, mode=mode)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "cfg", "mode"),
    [(*run, "gather") for run in GRID] + [(*run, "ulysses") for run in GRID if run[0] // run[1] in (1, 2, 3)],
)
def test_every_number_of_frames(single, shared, size, cfg, mode):
    check(single, shared, size, CASES, cfg=cfg, mode=mode)


def test_heads_that_do_not_divide_are_refused(ranks, opener, stubs):
    cut, plain = opener.bundle.manifest.denoisers["task"], stubs.denoiser_spec({}, "block", 2, "weights")

    def work(control):
        check_shared(cut, Ranks(control, cfg=2, mode="ulysses"), 5, guided=True)  # two ranks share the frames
        with pytest.raises(InputError, match="--attention_cut"):
            check_shared(plain, Ranks(control, cfg=1, mode="ulysses"), 5, guided=True)
        check_shared(cut, Ranks(control, cfg=1, mode="ulysses"), 5, guided=True)

    for error in ranks(4, work):
        assert isinstance(error, InputError)
        assert "4 ranks cannot share 6 heads" in str(error) and "1, 2, 3, 6" in str(error)
