"""Clips that several ranks sample together, and one rank alone."""

from __future__ import annotations

import numpy as np

from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape
from worldrt.runtime.parallel.modes import shared_denoiser
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.samplers import rectified_flow_ab2
from worldrt.runtime.sampling import sample

CHANNELS, HEIGHT, WIDTH, TEXT = 16, 8, 4, 5
TABLE = rectified_flow_ab2(3, 80.0, 0.002)
TOLERANCE = 1e-5
GRID = ((2, 1), (2, 2), (3, 1), (4, 1), (4, 2), (6, 2))
"""Ranks, and groups of guidance."""
CASES = [*((count, 7.0) for count in range(1, 10)), (1, 7.0, 1, 10), (2, 7.0, 2, 10)]
"""Frames, guidance, clips together, latent rows."""


def sampled(model, frames, guidance, clips=1, height=HEIGHT):
    """The latents of clips of some length, from seeded noise, texts and known first frames."""
    random = np.random.default_rng(frames)
    shape = DenoiserShape(CHANNELS, frames, height, WIDTH, TEXT, clips)

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


def by_torch(stubs, patch, tmp_path_factory, config, weights, cut=False):
    folder = tmp_path_factory.mktemp("tiny") / "torch"
    bundle, sources = stubs.denoiser_bundle(folder, config, weights, "block", False, cut)
    stubs.run_by_torch(patch, {file: source.module for file, source in sources.items()})
    return Opener(bundle, Execution())


def one_rank(opener):
    model = DenoiserModel(opener, opener.bundle.manifest.denoisers["task"])
    made = {}

    def result(*args):
        if args not in made:
            made[args] = sampled(model, *args)
        return made[args]

    return result


def of_ranks(all_well, opener, size, cases, **chosen):
    def work(control):
        ranks = Ranks(control, **chosen)
        model = shared_denoiser(opener, opener.bundle.manifest.denoisers["task"], ranks)
        made = [sampled(model, *case) for case in cases]
        traffic = {c.members: (c.calls, c.received_bytes) for c in ranks.communicators}
        ranks.close()
        return made, traffic

    return all_well(size, work)


def check(single, shared, size, cases, **chosen):
    for made, _ in shared(size, cases, **chosen):
        for case, latents in zip(cases, made, strict=True):
            expected = single(*case)
            worst = np.abs(latents - expected).max() / np.abs(expected).max()
            assert worst <= TOLERANCE, (case, worst)
