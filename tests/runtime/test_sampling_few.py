"""Few steps of a distilled model, on a tiny network, against the official loop in float64."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.runtime import philox
from worldrt.runtime.samplers import distilled
from worldrt.runtime.shortcuts import Shortcuts

from .test_sampling import SHAPE, Inputs, Reference, near, run


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_few_steps_are_those_of_the_official_loop(tiny_denoiser, steps):
    """x0 at 80, 3.6, 1.5574, 0.684, and noise of the next level on it, in float64; no guidance."""
    model, inputs = tiny_denoiser(3, "block", "batched"), Inputs()
    reference, x = Reference(model, inputs), inputs.noise.astype(np.float64)
    levels = [80.0, 3.6, 1.5574, 0.684][:steps]
    for index, sigma in enumerate(levels):
        x = reference.guided(x, sigma, 0.0)
        if index + 1 < steps:
            x = x + levels[index + 1] * philox.normal(SHAPE.latents(), 5, index + 1)
    made = run(
        model,
        inputs,
        distilled(steps, 80.0, 0.002),
        guidance=0.0,
        renoise=lambda index: philox.normal(SHAPE.latents(), 5, index + 1),
    )
    near(made, x)


def test_few_steps_are_never_left_out(tiny_denoiser):
    model, inputs = tiny_denoiser(3, "whole", "batched"), Inputs()

    def made(**options):
        noise = {"renoise": lambda index: philox.normal(SHAPE.latents(), 5, index + 1)}
        return run(model, inputs, distilled(4, 80.0, 0.002), guidance=0.0, **noise, **options)

    assert np.array_equal(made(), made(shortcuts=Shortcuts(10.0)))
