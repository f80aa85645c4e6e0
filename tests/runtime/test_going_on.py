"""A photograph and a film, from their files to the first frames of the video that goes on from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from PIL import Image

from worldrt.runtime import Observer, Request, Video2World
from worldrt.runtime.cli import main
from worldrt.runtime.images import cover
from worldrt.runtime.sources import open_source

from ..fakes.films import film, photo

WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="module")
def vae(nano):
    """The VAE by diffusers: all frames at once, no step graphs."""
    return AutoencoderKLWan.from_pretrained(nano.root / "vae").eval()


def through(vae, frames_THWC):
    """decode(encode(x)) in float64 of 0 to 255."""
    pixels = torch.from_numpy(frames_THWC.transpose(3, 0, 1, 2)[None].astype(np.float32)) / 127.5 - 1
    with torch.no_grad():
        made = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    return made[0].permute(1, 2, 3, 0).double().clamp(-1, 1).numpy() * 127.5 + 127.5


def go_on(bundle, path, count, place, *more):
    """`trt-run video2world`, into a folder of pictures; its frames."""
    flags = ["--bundle", bundle, "--input_path", path, "--num_conditional_frames", count, "--save_path", f"png:{place}"]
    flags += [
        "--prompt",
        "a red disc",
        "--steps",
        2,
        "--num_frames",
        9,
        "--width",
        WIDTH,
        "--height",
        HEIGHT,
        "--quiet",
    ]
    assert main(["video2world", *map(str, flags), *more]) == 0
    return np.stack([open_source(picture).last(1)[0] for picture in sorted(place.glob("*.png"))])


@pytest.fixture(scope="module", params=["photo.jpg", "photo.png", "photo.webp", "film.mp4", "film.webm"])
def given(request, tmp_path_factory):
    """A file of another size and shape than the video."""
    path = tmp_path_factory.mktemp("given") / request.param
    if path.stem == "photo":
        Image.fromarray(photo(150, 200, 1.0)).save(path, quality=95)
        return path
    codec = "libx264" if path.suffix == ".mp4" else "libvpx-vp9"
    return film(path, [photo(150, 200, i / 29) for i in range(30)], codec, crf="12")


@pytest.mark.parametrize("count", [1, 5])
def test_the_first_frames_are_those_of_the_file_within_the_error_of_the_vae(nano_by_torch, vae, given, tmp_path, count):
    if given.stem == "photo" and count == 5:
        assert (
            main(["video2world", *GOES_WRONG, "--bundle", str(nano_by_torch.folder), "--input_path", str(given)]) == 2
        )
        return
    made = go_on(nano_by_torch.folder, given, count, tmp_path / "frames")
    pixels = cover(open_source(given).last(count), WIDTH, HEIGHT)
    drawn = cover(photo(150, 200, 1.0)[None], WIDTH, HEIGHT)
    assert np.abs(pixels[-1:].astype(int) - drawn).mean() < 4  # of its codec: what was read is what was drawn
    expected = through(vae, pixels)
    assert made.shape == (9, HEIGHT, WIDTH, 3)
    assert np.abs(made[:count] - expected).max() <= 0.51
    own, ours = np.abs(expected - pixels).mean(), np.abs(made[:count].astype(float) - pixels).mean()
    assert ours <= own + 0.26  # a quarter is what rounding adds
    assert np.abs(made[8] - expected[-1]).mean() > 1  # and what follows is made, not kept


GOES_WRONG = [
    "--prompt",
    "a",
    "--num_conditional_frames",
    "5",
    "--num_frames",
    "9",
    "--steps",
    "1",
    "--save_path",
    "null:",
]


@pytest.mark.parametrize("known", [1, 5])
def test_only_the_given_frames_are_encoded(nano_by_torch, vae, known):
    """Exact because the VAE is causal: the latents of the frames alone are the first ones of a longer video's, and what
    the longer one goes on with changes nothing."""
    longer = np.stack([photo(HEIGHT, WIDTH, i / 12) for i in range(13)])
    padded = np.concatenate([longer[:known], np.repeat(longer[known - 1 : known], 13 - known, 0)])
    latents = 1 + (known - 1) // 4
    with Video2World.open(nano_by_torch.folder) as world:
        codec = world.models.vae("video2world")
        alone = codec.encode(longer[:known])
        for video in (longer, padded):
            assert np.array_equal(codec.encode(video)[:, :, :latents], alone)
        encoded = []
        encode = codec.encode
        codec.encode = lambda frames: encoded.append(frames.shape) or encode(frames)
        next(world(Request("a", num_frames=9, steps=1, width=WIDTH, height=HEIGHT), longer[:known], Observer()))
    assert encoded == [(known, HEIGHT, WIDTH, 3)]
    assert alone.shape[2] == latents


def test_the_sidecar_says_what_was_read_and_how(nano_by_torch, tmp_path):
    path = film(tmp_path / "a.webm", [photo(64, 96, i / 9) for i in range(10)], "libvpx")
    by_media = go_on(nano_by_torch.folder, path, 5, tmp_path / "media")
    by_dali = go_on(nano_by_torch.folder, path, 5, tmp_path / "dali", "--input_reader", "dali")
    assert np.array_equal(by_media, by_dali)
    said = json.loads((tmp_path / "dali.json").read_text())["input"]
    assert (said["path"], said["frames"], said["reader"]) == (str(path), 5, "dali")
    again = tmp_path / "again"
    flags = ["--from_sidecar", str(tmp_path / "dali.json"), "--save_path", f"png:{again}", "--quiet"]
    assert main(["video2world", *flags]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["input"]["reader"] == "dali"
