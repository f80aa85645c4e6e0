"""The pipelines over the nano networks, against the same steps written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldrt.engine.errors import BundleError, InputError
from worldrt.runtime import Request, Text2Image, Text2World, Video2World
from worldrt.runtime.images import cover
from worldrt.runtime.pipelines.video2world import DEFAULT_NEGATIVE_PROMPT

from ..fakes.observers import Told

SMALL = Request("a red car", steps=2, num_frames=9, width=48, height=32, seed=3)


def picture(height=40, width=56):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_text2world_is_text2image_then_video2world(nano_by_torch):
    with Text2World.open(nano_by_torch.folder) as world:
        frames = list(world(SMALL))
    first = replace(SMALL, width=None, height=None, negative_prompt=DEFAULT_NEGATIVE_PROMPT)
    with Text2Image.open(nano_by_torch.folder) as draw:
        drawn = draw(first)
    assert drawn.shape == (80, 128, 3)
    with Video2World.open(nano_by_torch.folder) as go_on:
        expected = list(go_on(SMALL, drawn))
    assert len(frames) == 9 and all(f.shape == (32, 48, 3) and f.dtype == np.uint8 for f in frames)
    assert np.array_equal(np.stack(frames), np.stack(expected))


def test_same_seed_same_bytes(nano_by_torch):
    with Text2World.open(nano_by_torch.folder) as world:
        first, again = (np.stack(list(world(SMALL))) for _ in range(2))
        other = np.stack(list(world(replace(SMALL, seed=4))))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_batched_and_sequential_guidance(nano_by_torch):
    made = []
    for guidance in ("batched", "sequential"):
        with Video2World.open(nano_by_torch.folder, guidance=guidance) as world:
            made.append(np.stack(list(world(SMALL, picture()))).astype(int))
    assert np.abs(made[0] - made[1]).max() <= 1  # bytes of two float32 computations in another order


def test_first_frame_is_the_given_one(nano_by_torch):
    """Through the VAE and back, with nothing of the noise in it: the same for every seed and prompt."""
    with Video2World.open(nano_by_torch.folder) as world:
        a = next(world(SMALL, picture()))
        b = next(world(replace(SMALL, seed=9, prompt="something else"), picture()))
        vae = world.models.vae("video2world")
        through = next(vae.decode(vae.encode(cover(picture()[None], 48, 32))))
        five = list(world(SMALL, np.stack([picture()] * 5)))
        again = list(world(replace(SMALL, seed=9), np.stack([picture()] * 5)))
    assert np.array_equal(a, b) and np.array_equal(a, through)
    assert np.array_equal(np.stack(five[:5]), np.stack(again[:5])) and not np.array_equal(five[8], again[8])


def test_empty_negative_prompt(nano_by_torch):
    """Video: guidance has no effect, and that is said. Picture: the unconditional text is zeros."""
    told, quiet = Told(), Told()
    with Video2World.open(nano_by_torch.folder) as world:
        one = list(world(replace(SMALL, negative_prompt="", num_frames=5), picture(), told))
        unguided = list(world(replace(SMALL, guidance=0.0, num_frames=5), picture(), quiet))
    assert np.abs(np.stack(one).astype(int) - np.stack(unguided)).max() <= 1
    assert len(told.warnings) == 1 and "guidance" in told.warnings[0] and not quiet.warnings
    with Text2Image.open(nano_by_torch.folder) as draw:
        drawn = [draw(replace(SMALL, negative_prompt=text)) for text in (None, "", "x")]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_frames_come_one_by_one_with_progress(nano_by_torch):
    told = Told()
    with Text2World.open(nano_by_torch.folder) as world:
        frames = world(SMALL, told)
        assert not told.steps
        next(frames)
        sampled = [step for step in told.steps if "sampling" in step[0]]
        assert sampled == [
            *[("text2image: sampling", i, 3) for i in range(4)],
            *[("video2world: sampling", i, 3) for i in range(4)],
        ]
        assert len(list(frames)) == 8
    assert told.steps[-1] == ("video2world: decode", 9, 9)
    assert all(seconds >= 0 for seconds in told.timings.seconds.values())


def test_a_run_can_be_cancelled_between_steps(nano_by_torch):
    told = Told(stop_at=("video2world: sampling", 1))
    with Text2World.open(nano_by_torch.folder) as world:
        with pytest.raises(KeyboardInterrupt):
            list(world(SMALL, told))
        assert len(list(world(SMALL))) == 9  # and the models can be used again


def test_offloaded_text_encoder_gives_the_same(nano_by_torch):
    with Text2Image.open(nano_by_torch.folder, offload_text=True) as draw:
        offloaded = draw(SMALL)
        assert draw.models.text("text2image")._loaded is None
    with Text2Image.open(nano_by_torch.folder) as draw:
        assert np.array_equal(draw(SMALL), offloaded)


def test_errors_come_before_work(nano_by_torch):
    with Text2World.open(nano_by_torch.folder) as world:
        for wrong in ({"prompt": " \n"}, {"num_frames": 8}, {"aspect_ratio": "5:4", "width": None, "height": None}):
            with pytest.raises(InputError):
                world(replace(SMALL, **wrong))
        told = Told()
        with pytest.raises(InputError, match="10000 words"):
            list(world(replace(SMALL, prompt="word " * 10000), told))
        assert not told.steps
    with pytest.raises(BundleError, match="no bundle here"):
        Text2World.open(nano_by_torch.root)


def test_frames_that_cannot_be_used(nano_by_torch):
    with Video2World.open(nano_by_torch.folder) as world:
        for wrong in (picture().astype(np.float32), picture()[..., :1], picture()[..., 0]):
            with pytest.raises(InputError, match="uint8 RGB"):
                world(SMALL, wrong)
        with pytest.raises(InputError, match="1 more than a multiple of 4"):
            world(SMALL, np.stack([picture()] * 2))
