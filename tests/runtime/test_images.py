"""Resizing against torch's antialiased bilinear filter, and cutting against the official code's arithmetic."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
import torch

from worldrt.runtime.images import cover, resize

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(48, 64), (20, 31), (97, 130), (48, 30), (7, 200)])
def test_resize(size):
    frames = RNG.integers(0, 256, (2, 48, 64, 3), np.uint8)
    height, width = size
    source = torch.from_numpy(frames).permute(0, 3, 1, 2).double()
    expected = torch.nn.functional.interpolate(source, size, mode="bilinear", antialias=True)
    cut_off = expected.permute(0, 2, 3, 1).numpy() - resize(frames, width, height)
    assert cut_off.min() >= -1e-3 and cut_off.max() < 1


def official(frames, width, height):
    """As Cosmos-Predict2 does it by torchvision: float32 of 0 to 1, resized, cut at the centre, cast to bytes."""
    video = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    rows, columns = video.shape[2:]
    scale = max(width / columns, height / rows)
    size = (ceil(scale * rows), ceil(scale * columns))
    if size != (rows, columns):
        video = torch.nn.functional.interpolate(video, size, mode="bilinear", antialias=True, align_corners=False)
    top, left = round((size[0] - height) / 2.0), round((size[1] - width) / 2.0)
    cut = video[:, :, top : top + height, left : left + width]
    return (cut * 255.0).to(torch.uint8).permute(0, 2, 3, 1).numpy()


SIZES = [(1280, 704), (960, 704), (704, 960), (960, 960), (704, 1280)]
SIZES += [(768, 432), (640, 480), (480, 640), (480, 480), (432, 768)]


@pytest.mark.parametrize("source", [(721, 1283), (97, 131), (704, 1281), (3, 40), (1, 1)], ids=str)
def test_cover_is_the_official_scale_and_cut(source):
    """Of noise, for all aspect ratios at both resolutions. A value that falls on a whole number may be 1 less there,
    by the rounding of its float32."""
    frames = RNG.integers(0, 256, (1, *source, 3), np.uint8)
    for width, height in SIZES:
        expected, actual = official(frames, width, height), cover(frames, width, height)
        difference = actual.astype(int) - expected
        assert set(np.unique(difference)) <= {-1, 0, 1}, (width, height)
        assert (difference != 0).mean() < 0.01, (width, height)


def test_flat_colours_stay_as_they_are():
    frames = np.full((1, 97, 131, 3), (0, 127, 255), np.uint8)
    assert np.array_equal(cover(frames, 64, 48), np.full((1, 48, 64, 3), (0, 127, 255), np.uint8))


def test_a_long_and_narrow_picture_takes_no_more_memory_than_its_result():
    """Scaled whole it would be 45 million pixels wide."""
    frames = np.zeros((1, 1, 65_000, 3), np.uint8)
    frames[:, :, 32_490:32_510] = 200
    made = cover(frames, 1280, 704)
    assert made.shape == (1, 704, 1280, 3) and (made == 200).all()


@pytest.mark.parametrize("size", [(64, 48), (50, 40), (40, 50), (128, 16), (1360, 768)])
def test_cover(size):
    """A picture whose colour says where it is keeps its middle in the middle and is not distorted."""
    width, height = size
    y, x = np.mgrid[0:96, 0:128]
    picture = np.stack([y * 2, x * 2, np.zeros_like(x)], -1).astype(np.uint8)[None]
    out = cover(picture, width, height)[0].astype(float)
    assert out.shape == (height, width, 3)
    assert np.abs(out[..., :2].mean((0, 1)) - picture[0, ..., :2].mean((0, 1))).max() <= 2
    step = np.diff(out[height // 2, :, 1])[width // 4 : -width // 4].mean()
    down = np.diff(out[:, width // 2, 0])[height // 4 : -height // 4].mean()
    assert step == pytest.approx(down, rel=0.15) and step > 0


def test_same_size_is_not_touched():
    frames = RNG.integers(0, 256, (1, 16, 16, 3), np.uint8)
    assert cover(frames, 16, 16) is frames
