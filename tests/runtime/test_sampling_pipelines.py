"""Few steps, clips together and shortcuts as a request asks for them, over the nano networks."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from worldrt.engine import bundle as b
from worldrt.engine.errors import InputError
from worldrt.engine.plans import Range
from worldrt.engine.schema import decode, encode
from worldrt.runtime import Request, Text2Image, Text2World, Video2World
from worldrt.runtime.clips import check_clips
from worldrt.runtime.components import Execution
from worldrt.runtime.engines import Engines
from worldrt.runtime.models import Models
from worldrt.runtime.record import Recording
from worldrt.runtime.request import image_settings
from worldrt.runtime.shortcuts import Shortcuts

from ..fakes.observers import Told

SMALL = Request("a red car", steps=2, num_frames=5, width=48, height=32)
THREE = [replace(SMALL, prompt=text, seed=i) for i, text in enumerate(("a red car", "rain on a roof", "a red car"))]


def apart(one, two):
    return np.abs(np.asarray(one).astype(int) - np.asarray(two)).max()


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8)


def test_pictures_together_are_those_of_one_by_one(nano_by_torch):
    told = Told()
    with Text2Image.open(nano_by_torch.folder) as draw:
        together = draw.many(THREE, told)
        alone = [draw(request) for request in THREE]
    assert all(apart(one, other) <= 1 for one, other in zip(together, alone, strict=True))
    assert apart(together[0], together[2]) > 1 and [frame.shape for frame in together] == [(32, 48, 3)] * 3
    assert [step for step in told.steps if "sampling" in step[0]] == [("text2image: sampling", i, 3) for i in range(4)]


def test_videos_together_are_those_of_one_by_one(nano_by_torch):
    """From one frame each, with the videos decoded in another order than they were asked for."""
    given = [picture(i) for i in range(3)]
    with Video2World.open(nano_by_torch.folder) as world:
        clips = world.many(THREE, given)
        together = {i: np.stack(list(clips[i])) for i in (2, 0, 1)}
        for i, request in enumerate(THREE):
            assert apart(together[i], np.stack(list(world(request, given[i])))) <= 1


def test_videos_from_text_together_are_those_of_one_by_one(nano_by_torch):
    with Text2World.open(nano_by_torch.folder) as world:
        clips = world.many(THREE[:2], refine=lambda request, drawn: replace(request, prompt="a refined prompt"))
        together = [np.stack(list(clip)) for clip in clips]
        for request, clip in zip(THREE, together, strict=False):
            one = np.stack(list(world(request, refine=lambda drawn: replace(request, prompt="a refined prompt"))))  # noqa: B023
            assert apart(clip, one) <= 3  # the picture that a video goes on from may be a level off


def test_what_cannot_be_made_together_is_said(nano_by_torch):
    with Text2Image.open(nano_by_torch.folder) as draw:
        for requests, text in (
            ([], "at least one"),
            ([SMALL, replace(SMALL, steps=3)], "equal sizes and samplers"),
            ([replace(SMALL, edit_strength=0.5)], "one at a time"),
        ):
            with pytest.raises(InputError, match=text):
                draw.many(requests)


@pytest.mark.parametrize(
    ("fields", "clips", "text"),
    [
        ({"clips": 2}, 3, "engines were asked for 2"),
        ({"clips": 3, "engines": Engines(profile={"batch": Range(1, 4, 4)})}, 3, "a batch of 6, and the profile"),
        ({"clips": 3, "engines": Engines(profile={"text2image.batch": Range(1, 4, 4)})}, 3, "a batch of 6"),
    ],
)
def test_engines_that_are_too_small_for_a_batch_are_named(nano, monkeypatch, fields, clips, text):
    models = Models([b.load_bundle(nano.folder)], Execution(backend="tensorrt", **fields))
    settings = image_settings(SMALL, nano.manifest.denoisers["text2image"], own_size=True)
    with pytest.raises(InputError, match=text):
        check_clips(models, "text2image", settings, clips)
    check_clips(models, "text2image", settings, 2)


def test_what_is_recorded_is_one_clip_with_nothing_left_out(nano, tmp_path):
    models = Models([b.load_bundle(nano.folder)], Execution(record=Recording(tmp_path)))
    settings = image_settings(SMALL, nano.manifest.denoisers["text2image"], own_size=True)
    for wrong, clips in ((settings, 2), (replace(settings, shortcuts=Shortcuts(0.1)), 1)):
        with pytest.raises(InputError, match="--record_inputs"):
            check_clips(models, "text2image", wrong, clips)
    check_clips(models, "text2image", settings, 1)


@pytest.fixture
def distilled_nano(nano, tmp_path):
    """The nano bundle with the entry that `trt-export --distilled` writes."""
    images = nano.manifest.denoisers["text2image"]
    few = replace(images, sampler=b.Sampler("distilled", 4, 80.0, 0.002), guidance=b.Guidance("delta", 0.0))
    manifest = replace(nano.manifest, denoisers={**nano.manifest.denoisers, "text2image": few})
    folder = tmp_path / "distilled"
    shutil.copytree(nano.folder, folder)
    b.write_manifest(folder, manifest)
    return folder


def test_a_distilled_model_takes_its_four_steps_or_fewer(distilled_nano, nano_by_torch):
    """Without guidance and without a warning; the video after the picture has steps of its own."""
    told = Told()
    with Text2World.open(distilled_nano) as world:
        settings = world.settings(replace(SMALL, steps=7, guidance=3.0, sampler="rectified_flow_euler"))
        image, video = settings["text2image"], settings["video2world"]
        assert (image.sampler, image.steps, image.guidance) == ("distilled", 4, 0.0)
        assert (video.sampler, video.steps, video.guidance) == ("rectified_flow_euler", 7, 3.0)
        made = np.stack(list(world(replace(SMALL, distill_steps=2), told)))
    rows = [total for stage, done, total in told.steps if stage == "text2image: sampling" and not done]
    assert rows == [2] and not told.warnings and len(made) == 5
    with Text2Image.open(distilled_nano) as draw, pytest.raises(InputError, match="1 to 4 steps, got 35"):
        draw(replace(SMALL, steps=35))


def test_few_steps_of_another_model_are_warned_of(nano_by_torch):
    """They are made all the same: the same as of the distilled bundle, whose weights these are."""
    told = Told()
    request = replace(SMALL, distill_steps=3, steps=None)
    with Text2Image.open(nano_by_torch.folder) as draw:
        made, again = draw(request, told), draw(request)
        other = draw(replace(request, seed=1))
    assert len(told.warnings) == 1 and "not distilled" in told.warnings[0]
    assert np.array_equal(made, again) and not np.array_equal(made, other)


@pytest.mark.parametrize(
    "shortcut", [{"step_cache": 2.0}, {"guidance_interval": (0.5, 20.0)}, {"adaptive_guidance": 0.0}]
)
def test_shortcuts_of_a_request_reach_both_models(nano_by_torch, shortcut):
    request = replace(SMALL, steps=6)
    with Text2World.open(nano_by_torch.folder) as world:
        both = world.settings(replace(request, **shortcut))
        assert all(values.shortcuts for values in both.values())
        plain, fast = (np.stack(list(world(r))) for r in (request, replace(request, **shortcut)))
    assert not np.array_equal(plain, fast)


def test_a_run_with_shortcuts_can_be_cancelled_between_steps(nano_by_torch):
    request = replace(SMALL, steps=6, step_cache=2.0, guidance_interval=(0.5, 20.0))
    told = Told(stop_at=("video2world: sampling", 3))
    with Video2World.open(nano_by_torch.folder) as world:
        with pytest.raises(KeyboardInterrupt):
            list(world(request, picture(0), told))
        assert ("video2world: sampling", 4, 7) not in told.steps
        again, fresh = (np.stack(list(world(request, picture(0)))) for _ in range(2))
    assert np.array_equal(again, fresh)


def test_requests_of_older_sidecars_are_read_and_new_ones_come_back():
    assert decode(Request, {"prompt": "a", "seed": 1}) == Request("a", seed=1)
    request = Request("a", step_cache=0.1, guidance_interval=(0.3, 30.0), adaptive_guidance=0.99, distill_steps=4)
    assert decode(Request, encode(request)) == request
