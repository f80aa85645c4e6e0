"""Views beside each other, and conditions laid over them."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.scene.views import mosaic, mosaic_size, overlay


@pytest.mark.parametrize(
    ("layout", "rows"), [("row", [[0, 1, 2]]), ("column", [[0], [1], [2]]), ("grid", [[0, 1], [2, None]])]
)
def test_views_lie_in_their_places(layout, rows):
    views = np.stack([np.full((4, 6, 3), 50 * view + 10, np.uint8) for view in range(3)])
    picture = mosaic(views, layout)
    assert (picture.shape[1], picture.shape[0]) == mosaic_size(3, 6, 4, layout)
    for i, row in enumerate(rows):
        for j, view in enumerate(row):
            cell = picture[4 * i : 4 * i + 4, 6 * j : 6 * j + 6]
            assert (cell == (0 if view is None else 50 * view + 10)).all()


def test_an_unknown_layout_is_named():
    with pytest.raises(InputError, match="mosaic: expected one of row, column, grid, got 'heap'"):
        mosaic(np.zeros((1, 4, 6, 3), np.uint8), "heap")


def test_conditions_shine_through_as_in_the_official_preview():
    """Against torch's interpolation and the formula: c a + i (1 - a), a = 0.6 max(c)."""
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    views = generator.integers(0, 256, (2, 20, 30, 3), np.uint8)
    images = {kind: generator.integers(0, 256, (2, 8, 9, 3), np.uint8) for kind in ("box", "map")}
    images["box"][:, :4] = images["map"][:, :4] = 0
    large = [
        torch.nn.functional.interpolate(torch.from_numpy(image / np.float32(255)).permute(0, 3, 1, 2), (20, 30))
        for image in images.values()
    ]
    condition = torch.maximum(*large).permute(0, 2, 3, 1).numpy()
    alpha = condition.max(-1, keepdims=True) * 0.6
    expected = (condition * 255 * alpha + views * (1 - alpha)).astype(np.uint8)
    found = overlay(views, images)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert (found == expected).mean() > 0.99
    assert np.array_equal(found[:, :8], views[:, :8])  # black is clear
