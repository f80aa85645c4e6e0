"""What a request comes to, and every way in which it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from worldrt.engine.bundle import Guidance
from worldrt.engine.errors import InputError
from worldrt.engine.schema import decode, encode
from worldrt.runtime.jobs import Job
from worldrt.runtime.request import Request, image_settings, video_settings

SIZES_720 = {"16:9": (1280, 704), "1:1": (960, 960), "9:16": (704, 1280)}
SIZES = {"720": SIZES_720, "480": {"16:9": (768, 432), "1:1": (480, 480), "9:16": (432, 768)}}
PICTURES = {"any": {"16:9": (1360, 768), "1:1": (1024, 1024), "9:16": (768, 1360)}}


@pytest.fixture
def video(stubs):
    return stubs.denoiser_spec({}, "whole", 1, "", 7.0, sizes=SIZES, frames={"16": 93, "10": 61})


@pytest.fixture
def image(stubs):
    return stubs.denoiser_spec({}, "whole", 1, "", 4.0, sizes=PICTURES, frames={"16": 1})


def settle(spec, **request):
    return video_settings(Request("a car", **request), spec, temporal=4, clean_frames=1)


@pytest.mark.parametrize(
    ("request_", "size", "fps", "frames"),
    [
        ({}, (1280, 704), 16, 93),
        ({"resolution": "480", "fps": 10}, (768, 432), 10, 61),
        ({"aspect_ratio": "9:16"}, (704, 1280), 16, 93),
        ({"width": 320, "height": 192, "num_frames": 5}, (320, 192), 16, 5),
    ],
)
def test_video(video, request_, size, fps, frames):
    settings = settle(video, **request_)
    assert ((settings.width, settings.height), settings.fps, settings.num_frames) == (size, fps, frames)
    assert (settings.guidance, settings.steps, settings.sigma_max, settings.sigma_min) == (7.0, 5, 80.0, 0.002)


def test_picture_before_a_video(image):
    """It has its own size, of the aspect ratio that is nearest to the video's, and its own guidance."""
    request = Request("a car", width=432, height=768, guidance=3.0, resolution="480")
    settings = image_settings(request, image, own_size=False)
    assert (settings.width, settings.height, settings.guidance, settings.num_frames) == (768, 1360, 4.0, 1)
    alone = image_settings(Request("a car", guidance=3.0, width=64, height=48), image, own_size=True)
    assert (alone.width, alone.height, alone.guidance) == (64, 48, 3.0)


def test_classic_guidance_is_one_less(stubs):
    """u + s (c - u) = c + (s - 1) (c - u)."""
    spec = replace(stubs.denoiser_spec({}, "whole", 1, "", sizes=SIZES), guidance=Guidance("classic", 8.0))
    assert settle(spec).guidance == 7.0 and settle(spec, guidance=1.0).guidance == 0.0


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"num_frames": 92}, r"num_frames: .*multiple of 4, got 92; 89 or 93"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_frames": -3}, "num_frames"),
        ({"num_frames": 1}, r"more than the 1 given.*5 would do"),
        ({"width": 320}, "both"),
        ({"width": 321, "height": 192}, r"width: expected a multiple of 16 pixels, got 321; 320"),
        ({"width": 320, "height": 0}, "height"),
        ({"width": -16, "height": 16}, "width"),
        ({"aspect_ratio": "2:1"}, r"16:9, 1:1, 9:16"),
        ({"resolution": "1080"}, r"720, 480"),
        ({"fps": 24}, r"16 or 10"),
        ({"steps": 0}, "steps"),
        ({"sampler": "heun"}, "heun"),
        ({"sigma_max": 0.001}, "sigma_max"),
        ({"guidance": float("nan")}, "guidance"),
    ],
)
def test_what_cannot_be(video, request_, text):
    with pytest.raises(InputError, match=text):
        settle(video, **request_)


def test_a_single_resolution_has_no_choice(image):
    with pytest.raises(InputError, match="leave --resolution out"):
        image_settings(Request("a car", resolution="720"), image, own_size=True)


def test_numbers_of_numpy_and_lists_can_be_kept_in_a_sidecar():
    """They are found by a loop over seeds, and would be refused by JSON when all is sampled."""
    given = Request("a", seed=np.int64(3), guidance=np.float32(2), chunk_prompts=["a", "b"], num_chunks=np.uint8(2))
    plain = Request("a", seed=3, guidance=2.0, chunk_prompts=("a", "b"), num_chunks=2)
    assert given == plain and hash(given) == hash(plain)
    assert decode(Request, json.loads(json.dumps(encode(given)))) == plain


def test_a_job_takes_places_as_texts_or_paths():
    request = Request("a")
    given = Job(request, Path("out/a.mp4"), input_path="in.png", edit_path="clip.mp4")
    assert given == Job(request, "out/a.mp4", input_path=Path("in.png"), edit_path=Path("clip.mp4"))
    assert given.sidecar == Path("out/a.json") and Job(request, "null:").places == ()
