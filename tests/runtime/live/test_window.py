"""Windows of a queue through the blocks of a denoiser, one after the other, against its whole form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldrt.engine.errors import BundleError
from worldrt.runtime.chain import carried_of
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.live.clock import SimulatedClock
from worldrt.runtime.live.offline import generate
from worldrt.runtime.live.window import WindowDenoiser
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.sampling import sample

CLOSE = 1e-5  # of the largest value: float32, the same sums in another order


@pytest.fixture
def forms(nano_matrix_bundle, nano_matrix_blocks, stubs, monkeypatch):
    """The models of the whole form and of the block form, by torch."""
    both = (nano_matrix_bundle, nano_matrix_blocks)
    stubs.run_by_torch(monkeypatch, both[0].modules | both[1].modules)
    return [Models.open([nano.folder]) for nano in both]


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_a_window_through_its_blocks_is_the_whole_window(forms, frames):
    """Each frame at a level of its own, both texts, in turn: nothing of one evaluation is left for the next."""
    rng = np.random.default_rng(frames)
    windows = [WindowDenoiser(models.denoiser("world"), {"control"}) for models in forms]
    texts = rng.standard_normal((2, 7, 128)).astype(np.float32)
    for turn in range(3):
        x = rng.standard_normal((1, 16, frames, 4, 6)).astype(np.float32)
        level = np.sort(rng.integers(0, 1000, (1, frames)), axis=1).astype(np.float32)
        control = rng.standard_normal((1, frames, 48)).astype(np.float32)
        branch, text = ("cond", texts[0]) if turn % 2 else ("uncond", texts[1])
        whole, blocks = (w.x0(branch, text, x, level, {"control": control}) for w in windows)
        assert np.abs(whole - blocks).max() <= CLOSE * np.abs(whole).max()


@pytest.mark.parametrize("together", ["batched", "sequential"])
def test_clips_through_blocks_are_those_of_the_whole_form(nano_matrix_bundle, nano_matrix_blocks, forms, together):
    """With guidance, in one call for both texts or in two; the steps of a sampler set every level."""
    made = []
    rng = np.random.default_rng(0)
    texts = rng.standard_normal((2, 7, 128)).astype(np.float32)
    noise, control = rng.standard_normal((1, 16, 2, 4, 6)), rng.standard_normal((1, 2, 48))
    for nano in (nano_matrix_bundle, nano_matrix_blocks):
        model = Models.open([nano.folder], guidance=together).denoiser("world")
        assert model.conditions == {"control", "position"}
        bound = model.bind(DenoiserShape(16, 2, 4, 6, 7), guided=True)
        bound.fill_text(*texts)
        bound.fill("control", control)
        bound.fill("position", np.arange(2, dtype=np.float32))
        for _ in sample(bound, rectified_flow_ab2(2, 800.0, 50.0), noise.astype(np.float32), guidance=3.0):
            pass
        made.append(np.array(bound.x.numpy()))
    assert np.abs(made[0]).max() > 0.1 and np.abs(made[0] - made[1]).max() <= CLOSE * np.abs(made[0]).max()


def test_a_world_runs_in_block_form(forms):
    """In the queue of a live session, steered and guided."""
    told = []
    for models in forms:
        clock = SimulatedClock({"denoise": 0.1, "decode": 0.05, "text": 0.1}.__getitem__)
        world = World(models, guidance=2.0, base_steps=2)
        told.append(np.stack(list(generate(world, "a road", 1, ["D"] * 5 + ["DL"] * 4, clock=clock))))
    difference = np.abs(told[0].astype(int) - told[1].astype(int))
    assert told[0].std() > 1 and difference.max() <= 1


def test_what_is_carried_from_block_to_block_is_read_from_their_graphs(forms):
    spec = forms[1].opener("world").bundle.manifest.denoisers["world"]
    assert carried_of(spec) == ("hidden", "text_hidden", "q", "text_q", "kv", "text_kv")
    assert carried_of(forms[0].opener("world").bundle.manifest.denoisers["world"]) == ()
    plain = spec.graphs["block"]
    other = replace(plain, outputs=plain.outputs[1:])
    with pytest.raises(BundleError, match="outputs that the next block takes"):
        carried_of(replace(spec, graphs=dict(spec.graphs) | {"block_control": other}))
