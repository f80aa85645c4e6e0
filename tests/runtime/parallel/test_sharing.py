"""A clip that several ranks share equals that of one rank."""

from __future__ import annotations

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.parallel.checks import check_shared
from worldrt.runtime.parallel.ranks import Ranks

from .clips import CASES, GRID, by_torch, check, of_ranks, one_rank


@pytest.fixture(scope="module", params=["torch", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def opener(request, stubs, tmp_path_factory):
    """The tiny denoiser in block form, run by torch modules or as ONNX graphs."""
    if request.param == "onnxruntime":
        yield Opener(request.getfixturevalue("tiny_blocks"), Execution(options={"threads": 1}))
        return
    with pytest.MonkeyPatch.context() as patch:
        yield by_torch(stubs, patch, tmp_path_factory, *stubs.tiny_weights(3))


@pytest.fixture(scope="module")
def single(opener):
    """What one rank makes, by arguments."""
    return one_rank(opener)


@pytest.fixture
def shared(all_well, opener):
    """What each of several ranks makes of some cases, and what each has received."""
    return lambda size, cases, **chosen: of_ranks(all_well, opener, size, cases, **chosen)


@pytest.mark.parametrize(
    ("size", "cfg", "frames"), [(2, 1, (1, 2, 5)), (2, 2, (3,)), (3, None, (1, 2, 4, 7)), (4, None, (1, 5))]
)
def test_any_number_of_frames_is_shared_by_any_number_of_ranks(single, shared, size, cfg, frames):
    check(single, shared, size, [(count, 7.0) for count in frames], cfg=cfg)


def test_without_guidance_all_ranks_share_the_frames(single, shared):
    check(single, shared, 2, [(3, 0.0)], cfg=2)


def test_clips_that_are_made_together_are_shared_too(single, shared):
    check(single, shared, 2, [(3, 7.0, 2)], cfg=1)
    check(single, shared, 2, [(3, 7.0, 2)], cfg=2)


@pytest.mark.parametrize(("size", "height"), [(3, 10), (4, 12)])
def test_fewer_frames_than_ranks_are_shared_by_rows(single, shared, size, height):
    """Of five rows of tokens, three ranks have two, two and one; six are cut into pieces of three rows."""
    check(single, shared, size, [(1, 7.0, 1, height), (2, 7.0, 1, height)], cfg=1)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "cfg"), GRID)
def test_every_number_of_frames(single, shared, size, cfg):
    check(single, shared, size, CASES, cfg=cfg)


def test_a_model_in_one_graph_is_not_shared_by_frames(ranks, stubs):
    whole = stubs.denoiser_spec({}, "whole", 2, "weights")

    def work(control):
        check_shared(whole, Ranks(control), 1, guided=False)  # of a picture, all ranks make the same
        check_shared(whole, Ranks(control), 5, guided=True)
        check_shared(whole, Ranks(control), 5, guided=False)

    for error in ranks(2, work):
        assert isinstance(error, InputError)
        assert "--form block" in str(error)
