"""Ranks that share a clip leave out the same evaluations as one rank."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.parallel.denoiser import SharedDenoiser
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.shortcuts import Shortcuts
from worldrt.runtime.skipping import Skipping
from worldrt.runtime.steps import Steps

FRAMES, TEXT = 5, 5
TABLE = rectified_flow_ab2(9, 80.0, 0.002)
CLOSE = 1e-4  # of the largest value, after ten rows
WAYS = (
    Shortcuts(step_cache=1.5),
    Shortcuts(adaptive_guidance=0.2),
    Shortcuts(step_cache=1.5, adaptive_guidance=0.2),
)


@pytest.fixture(scope="module")
def opener(stubs, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("tiny") / "torch"
        bundle, sources = stubs.denoiser_bundle(folder, *stubs.tiny_weights(3), "block", False)
        stubs.run_by_torch(patch, {file: source.module for file, source in sources.items()})
        yield Opener(bundle, Execution())


def sampled(model, shortcuts, clips):
    """The latents of clips whose first frame is known, and what was done for each row."""
    random = np.random.default_rng(0)
    shape = DenoiserShape(16, FRAMES, 4, 6, TEXT, clips)
    noise, clean = (random.standard_normal(shape.latents()).astype(np.float32) for _ in range(2))
    bound = model.bind(shape, guided=True, alone=True)
    bound.fill_text(*random.standard_normal((2, clips, TEXT, 24)).astype(np.float32))
    mask = np.zeros((clips, FRAMES), np.float32)
    mask[:, 0] = 1
    for name, array in (("position", np.arange(FRAMES, dtype=np.float32)), ("clean", clean), ("mask", mask)):
        bound.fill(name, array)
    bound.fill("x", 80 * noise)
    skipping, kinds = Skipping(Steps(bound, TABLE, 3.0, None), shortcuts), []
    for row in range(len(TABLE)):
        before = dict(skipping.evaluations)
        skipping.step(row)
        kinds += [kind for kind, count in skipping.evaluations.items() if count > before[kind]]
    return bound.result(), kinds


@pytest.mark.parametrize(("size", "cfg", "clips"), [(2, 1, 1), (2, 2, 2), (4, 2, 1)])
def test_what_ranks_leave_out_is_what_one_leaves_out(all_well, opener, size, cfg, clips):
    spec = opener.bundle.manifest.denoisers["task"]
    alone = DenoiserModel(opener, spec)
    expected = [sampled(alone, shortcuts, clips) for shortcuts in WAYS]
    assert {"guided", "reused"} <= set(expected[0][1]) and {"guided", "alone"} == set(expected[1][1])

    def work(control):
        ranks = Ranks(control, cfg=cfg)
        model = SharedDenoiser(opener, spec, ranks)
        made = [sampled(model, shortcuts, clips) for shortcuts in WAYS]
        ranks.close()
        return made

    for made in all_well(size, work):
        for (latents, kinds), (whole, wanted) in zip(made, expected, strict=True):
            assert kinds == wanted
            assert np.abs(latents - whole).max() <= CLOSE * np.abs(whole).max()


def test_activations_of_parts_of_frames_are_sampled_where_those_of_whole_frames_are(monkeypatch):
    """Pieces of frames of two ranks, of which tokens are looked at, against the whole."""
    from functools import partial
    from types import SimpleNamespace

    from worldrt.engine.device import HostDevice, host_buffer
    from worldrt.runtime import change
    from worldrt.runtime.bound import BoundDenoiser
    from worldrt.runtime.change import Change
    from worldrt.runtime.parallel.bound import SharedBound
    from worldrt.runtime.parallel.share import Share

    monkeypatch.setattr(change, "SAMPLED", 2 * 5 * 4)
    values = np.random.default_rng(0).standard_normal((1, 2, 12, 4)).astype(np.float32)

    def looked_at(part, pieces):
        hidden = host_buffer(np.ascontiguousarray(part))
        bound = SimpleNamespace(device=HostDevice(), clips=1, blocks=None, hidden=(hidden, hidden), pieces=pieces)
        return Change(bound, np.ones(2))._sampled(hidden)[0]

    whole = looked_at(values, partial(BoundDenoiser.pieces, None))
    assert whole.size == 2 * 5 * 4
    cut = values.reshape(1, 6, 4, 4)  # each frame in three pieces
    found = []
    for part in range(2):
        share = Share(part, 2, 2, cuts=3)
        here = partial(SharedBound.pieces, SimpleNamespace(share=share))
        found.append(looked_at(cut[:, share.frames], here))
    assert np.array_equal(np.concatenate(found), whole)
