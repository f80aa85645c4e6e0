"""Resizing against torch's antialiased bilinear filter."""

from __future__ import annotations

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
    actual = resize(frames, width, height)
    assert np.abs(actual - expected.permute(0, 2, 3, 1).numpy()).max() <= 0.501


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
