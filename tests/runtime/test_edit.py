"""Edits: where sampling begins, against the official numbers and the steps written out in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime import Observer, Request, Text2Image, Text2World, Video2World
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.edit import edited, first_row
from worldrt.runtime.images import cover
from worldrt.runtime.pipelines.base import encode_texts
from worldrt.runtime.pipelines.video2world import DEFAULT_NEGATIVE_PROMPT
from worldrt.runtime.samplers import rectified_flow_ab2, rectified_flow_euler

CLIP = Request("a red car", steps=4, num_frames=5, width=48, height=32, seed=3)


@pytest.mark.parametrize(("steps", "strength", "row"), [
    (35, 0.8, 6), (35, 0.4, 21), (35, 0.5, 17), (35, 1.0, 0), (35, 1e-3, 34), (10, 0.3, 7), (10, 0.7, 3), (2, 0.9, 0),
])  # fmt: skip
def test_steps_that_are_left_out(steps, strength, row):
    """int(steps (1 - strength)), rounded as floats are: 0.8 of 35 leaves out 6, and 0.7 of 10 leaves out 3."""
    assert first_row(steps, strength) == row


def official(x, sigmas, x0_of):
    """Two-step Adams-Bashforth from a first-order step on, and the clean pass, in float64."""
    before = None
    for i, (t, s) in enumerate(pairwise(sigmas)):
        x0, h = x0_of(x, t), math.log(t / s)
        phi1 = -math.expm1(-h) / h
        phi2 = (phi1 - 1) / -h
        if before is None:
            x = s / t * x + (1 - s / t) * x0
        else:
            c2 = math.log(t / sigmas[i - 1]) / h
            x = math.exp(-h) * x + h * ((phi1 - phi2 / c2) * x0 + phi2 / c2 * before)
        before = x0
    return x0_of(x, sigmas[-1])


@pytest.mark.parametrize("strength", [1.0, 0.8, 0.4, 0.1, 1e-3])
@pytest.mark.parametrize("steps", [5, 35])
def test_the_table_against_float64(steps, strength):
    table = edited(rectified_flow_ab2(steps, 80.0, 0.002), steps, strength)
    ramp = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps + 1) ** 7
    sigmas = ramp[first_row(steps, strength) :]
    np.testing.assert_allclose(table.levels, sigmas, rtol=1e-13)
    rng = np.random.default_rng(0)
    start = rng.standard_normal(50) + sigmas[0] * rng.standard_normal(50)

    def x0_of(x, sigma):
        return 0.7 * x / (1 + sigma) + 0.3 * np.cos(x)

    x, before = start, np.full(50, np.nan)
    for level, (a, b, c, d) in zip(table.levels, table.coefficients, strict=True):
        x0 = x0_of(x, level)
        x, before = a * x + b * x0 + (c * before if c else 0), x0
        assert d == 0
    np.testing.assert_allclose(x, official(start, sigmas, x0_of), rtol=0, atol=1e-11)


def test_the_whole_table_and_the_smallest_part_of_one():
    for whole in (rectified_flow_ab2(7, 80.0, 0.002), rectified_flow_euler(7, 80.0, 0.002)):
        same, last = edited(whole, 7, 1.0), edited(whole, 7, 1e-20)
        assert np.array_equal(same.levels, whole.levels) and np.array_equal(same.coefficients, whole.coefficients)
        assert last.levels == [whole.levels[-1]] and np.array_equal(last.coefficients, [[0, 1, 0, 0]])
    assert rectified_flow_ab2(7, 80.0, 0.002).coefficients[3, 2] != 0  # the original is not changed
    assert edited(rectified_flow_ab2(7, 80.0, 0.002), 7, 0.5).coefficients[0, 2] == 0


def clip(count):
    y, x = np.mgrid[0:40, 0:56]
    return np.stack([np.stack([x * 4, y * 6, (x + 9 * t) % 256], -1) for t in range(count)]).astype(np.uint8)


def test_editing_a_clip(nano_by_torch):
    """From its latents and noise of the first sigma, step by step in float64, with the network's own predictions."""
    request = replace(CLIP, edit_strength=0.6, guidance=7.0)
    with Video2World.open(nano_by_torch.folder) as world:
        frames = np.stack(list(world(request, clip(1)[0], edit=clip(5))))
        models, vae = world.models, world.models.vae("video2world")
        start, given = vae.encode(cover(clip(5), 48, 32)), vae.encode(cover(clip(1), 48, 32))
        texts = encode_texts(models, "video2world", request.prompt, DEFAULT_NEGATIVE_PROMPT, Observer())
        bound = models.denoiser("video2world").bind(DenoiserShape(16, 2, 4, 6, len(texts[0])), guided=True)
        bound.fill_text(*texts)
        bound.fill("position", np.arange(2, dtype=np.float32))
        bound.fill("clean", np.concatenate([given, 0 * given], 2))
        bound.fill("mask", np.array([[1, 0]], np.float32))

        def x0_of(x, sigma):
            bound.fill("x", x)
            bound.fill("level", np.full((1, 2), sigma))
            bound.run()
            cond, uncond = bound.cond.numpy().astype(np.float64), bound.uncond.numpy()
            return cond + 7 * (cond - uncond)

        sigmas = (np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 5) ** 7)[1:]
        noise = np.random.RandomState(3).standard_normal(start.shape).astype(np.float32)
        latents = official(start.astype(np.float64) + sigmas[0] * noise, sigmas, x0_of)
        expected = np.stack(list(vae.decode(latents.astype(np.float32))))
        other = np.stack(list(world(request, clip(1)[0], edit=255 - clip(5))))
    assert np.abs(frames.astype(int) - expected).max() <= 1
    assert np.array_equal(other[0], frames[0]) and not np.array_equal(other, frames)


def test_clips_that_are_too_long_and_too_short(nano_by_torch):
    """Of a long one the first frames are taken; the last frame of a short one goes on."""
    request, warnings = replace(CLIP, edit_strength=0.6), []
    observer = Observer()
    observer.warn = warnings.append
    with Video2World.open(nano_by_torch.folder) as world:

        def run(edit):
            return np.stack(list(world(request, clip(1)[0], observer, edit=edit)))

        assert np.array_equal(run(clip(9)), run(clip(5))) and not warnings
        assert np.array_equal(run(clip(3)), run(clip(3)[[0, 1, 2, 2, 2]]))
    assert warnings == ["the clip to edit has 3 of 5 frames; its last one is taken for those that lack"]


def test_editing_a_picture_and_a_world(nano_by_torch):
    """text2world edits its picture with a strength of its own, then the clip with the other."""
    with Text2Image.open(nano_by_torch.folder) as draw:
        request = replace(CLIP, edit_strength=0.5)
        drawn = draw(request, edit=clip(1)[0])
        assert drawn.shape == (32, 48, 3)
        assert not np.array_equal(drawn, draw(request, edit=255 - clip(1)[0]))
        assert not np.array_equal(drawn, draw(CLIP))
        own = replace(CLIP, width=None, height=None, edit_strength=0.3, negative_prompt=DEFAULT_NEGATIVE_PROMPT)
        picture = draw(own, edit=clip(1))
    with Video2World.open(nano_by_torch.folder) as go_on:
        expected = list(go_on(request, picture, edit=clip(5)))
    with Text2World.open(nano_by_torch.folder) as world:
        frames = list(world(replace(request, picture_edit_strength=0.3), edit=clip(5)))
    assert np.array_equal(np.stack(frames), np.stack(expected))


def test_edits_that_cannot_be_made(nano_by_torch):
    with Video2World.open(nano_by_torch.folder) as world:
        for strength in (0.0, -0.1, 1.1, math.nan, math.inf):
            with pytest.raises(InputError, match="edit_strength: expected more than 0"):
                world.settings(replace(CLIP, edit_strength=strength))
        with pytest.raises(InputError, match="together with what is edited"):
            world(replace(CLIP, edit_strength=0.5), clip(1)[0])
        with pytest.raises(InputError, match="together with what is edited"):
            world(CLIP, clip(1)[0], edit=clip(5))
        with pytest.raises(InputError, match="edit: expected uint8 RGB"):
            world(replace(CLIP, edit_strength=0.5), clip(1)[0], edit=clip(5).astype(np.float32))
    with Text2World.open(nano_by_torch.folder) as both, pytest.raises(InputError, match="together with"):
        both(CLIP, edit=clip(5))
