"""A clip that several ranks share equals that of one rank."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.parallel.checks import check_shared
from worldrt.runtime.parallel.denoiser import SharedDenoiser
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.sampling import sample

CHANNELS, HEIGHT, WIDTH, TEXT = 16, 4, 6, 5
TABLE = rectified_flow_ab2(3, 80.0, 0.002)
TOLERANCE = 1e-5


def sampled(model, frames, guidance, clips=1):
    """The latents of clips of some length, from seeded noise, texts and known first frames."""
    random = np.random.default_rng(frames)
    shape = DenoiserShape(CHANNELS, frames, HEIGHT, WIDTH, TEXT, clips)

    def drawn(*sizes):
        return random.standard_normal(sizes).astype(np.float32)

    noise, clean, texts = 80 * drawn(*shape.latents()), drawn(*shape.latents()), drawn(2, clips, TEXT, 24)
    mask = np.zeros((clips, frames), np.float32)
    mask[:, 0] = frames > 1
    bound = model.bind(shape, guided=guidance != 0)
    bound.fill_text(*texts)
    for name, array in (("position", np.arange(frames, dtype=np.float32)), ("clean", clean), ("mask", mask)):
        bound.fill(name, array)
    for _ in sample(bound, TABLE, noise, guidance=guidance):
        pass
    return bound.result()


@pytest.fixture(scope="module", params=["torch", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def opener(request, stubs, tmp_path_factory):
    """The tiny denoiser in block form, run by torch modules or as ONNX graphs."""
    if request.param == "onnxruntime":
        yield Opener(request.getfixturevalue("tiny_blocks"), Execution(options={"threads": 1}))
        return
    with pytest.MonkeyPatch.context() as patch:
        bundle, sources = stubs.denoiser_bundle(
            tmp_path_factory.mktemp("tiny") / "torch", *stubs.tiny_weights(3), "block", False
        )
        stubs.run_by_torch(patch, {file: source.module for file, source in sources.items()})
        yield Opener(bundle, Execution())


@pytest.fixture(scope="module")
def single(opener):
    """What one rank makes, by arguments."""
    model = DenoiserModel(opener, opener.bundle.manifest.denoisers["task"])
    made = {}

    def result(*args):
        if args not in made:
            made[args] = sampled(model, *args)
        return made[args]

    return result


@pytest.fixture
def shared(all_well, opener):
    """What each of several ranks makes of some cases, and what each has received."""

    def run(size, cases, **chosen):
        def work(control):
            ranks = Ranks(control, **chosen)
            model = SharedDenoiser(opener, opener.bundle.manifest.denoisers["task"], ranks)
            made = [sampled(model, *case) for case in cases]
            traffic = {c.members: (c.calls, c.received_bytes) for c in ranks.communicators}
            ranks.close()
            return made, traffic

        return all_well(size, work)

    return run


def check(single, shared, size, cases, **chosen):
    for made, _ in shared(size, cases, **chosen):
        for case, latents in zip(cases, made, strict=True):
            expected = single(*case)
            assert np.abs(latents - expected).max() <= TOLERANCE * np.abs(expected).max(), case


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


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [1, 2])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_number_of_frames(single, shared, size, cfg):
    if size % cfg == 0:
        check(single, shared, size, [(count, 7.0) for count in range(1, 10)], cfg=cfg)


def test_a_model_in_one_graph_is_not_shared_by_frames(ranks, stubs):
    whole = stubs.denoiser_spec({}, "whole", 2, "weights")

    def work(control):
        check_shared(whole, Ranks(control), 1, guided=False)  # of a picture, all ranks make the same
        check_shared(whole, Ranks(control), 5, guided=True)
        check_shared(whole, Ranks(control), 5, guided=False)

    for error in ranks(2, work):
        assert isinstance(error, InputError)
        assert "--form block" in str(error)
