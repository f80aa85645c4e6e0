"""Windows of The Matrix that several ranks share, by frames, rows and heads, equal those of one rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldrt.engine import bundle as b
from worldrt.engine.weights import fingerprint
from worldrt.export.families.matrix.graphs import denoiser_graphs
from worldrt.export.families.matrix.variants import NANO, variant
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.parallel.modes import shared_denoiser
from worldrt.runtime.parallel.ranks import Ranks

SMALL = variant(NANO)
HEIGHT, WIDTH, TEXT = 8, 6, 5
CASES = ((1, False), (3, True))
"""Frames, and whether there are two branches in a call."""


@pytest.fixture(scope="module", params=[False, True], ids=["blocks", "attention cut"])
def opener(request, stubs, tmp_path_factory):
    """The denoiser of the nano world with random weights, run by torch modules."""
    folder, cut = tmp_path_factory.mktemp("matrix"), request.param
    (whole,) = denoiser_graphs(SMALL.dit, SMALL.diffusion)
    generator = torch.Generator().manual_seed(0)
    shapes = {whole.weights[name]: value.shape for name, value in whole.module.named_parameters()}
    weights = {key: torch.randn(shape, generator=generator) * 0.1 for key, shape in shapes.items()}
    stubs.save(weights, folder / "model.safetensors")
    sources = denoiser_graphs(SMALL.dit, SMALL.diffusion, "block", attention_cut=cut)
    first = {"block_control": SMALL.dit.control_start}
    graphs = {s.name: stubs.graph_of(s, f"{s.name}.onnx", weights, block=first.get(s.name, 0)) for s in sources}
    for source in sources:
        (folder / f"{source.name}.onnx").touch()
    control = b.Control(("D",), "none", SMALL.dit.control_width, SMALL.dit.control_start, SMALL.dit.control_end)
    spec = stubs.denoiser_spec(graphs, "block", SMALL.dit.blocks, "model.safetensors", control=control)
    files = {"model.safetensors": fingerprint(folder / "model.safetensors")}
    manifest = b.Manifest(b.SCHEMA, "matrix", "nano", {}, b.Weights(str(folder), files), {"world": spec})
    with pytest.MonkeyPatch.context() as patch:
        stubs.run_by_torch(patch, {f"{source.name}.onnx": source.module for source in sources})
        yield Opener(b.Bundle(folder, manifest, folder), Execution())


def windows(model):
    """x0 of both branches of some windows, from seeded latents, levels, texts and controls."""
    made = []
    for frames, guided in CASES:
        rng = np.random.default_rng(frames)

        def drawn(*shape, rng=rng):
            return rng.standard_normal(shape).astype(np.float32)

        bound = model.bind(DenoiserShape(16, frames, HEIGHT, WIDTH, TEXT), guided=guided)
        bound.fill_text(*drawn(2, 1, TEXT, SMALL.dit.text_width))
        bound.fill("x", drawn(1, 16, frames, HEIGHT, WIDTH))
        bound.fill("control", drawn(1, frames, SMALL.dit.control_width))
        bound.fill("position", np.arange(frames, dtype=np.float32))
        bound.fill_levels(np.sort(rng.integers(0, 1000, (1, frames)), axis=1).astype(np.float32))
        bound.run()
        parts = (bound.cond, bound.uncond) if guided else (bound.cond,)
        whole = getattr(bound, "whole", lambda own: own)
        made += [whole(bound.device.download(part)) for part in parts]
    return made


@pytest.mark.parametrize("size", [2, 4])
def test_windows_of_the_matrix_are_shared(all_well, opener, size):
    """Two frames to a rank and one to the other, or fewer frames than ranks. Controls are those of the whole window,
    and a token sees as many copies of its own frame's as it does alone."""
    spec = opener.bundle.manifest.denoisers["world"]
    expected = windows(DenoiserModel(opener, spec))

    def work(control):
        made = []
        for mode in ("gather", "ulysses") if "attend" in spec.graphs else ("gather",):
            ranks = Ranks(control, cfg=1, mode=mode)
            found = windows(shared_denoiser(opener, spec, ranks))
            made += [(mode, x0, whole) for x0, whole in zip(found, expected, strict=True)]
            ranks.close()
        return made

    for made in all_well(size, work):
        for mode, x0, whole in made:
            assert np.abs(x0 - whole).max() <= 1e-5 * np.abs(whole).max(), mode
