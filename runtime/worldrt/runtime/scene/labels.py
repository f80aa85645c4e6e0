"""What a simulator without pictures can say of what a camera sees: labels of the road and of road users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldrt.runtime.scene.boxes import Box
from worldrt.runtime.scene.drawing import pillow
from worldrt.runtime.scene.poses import Float64
from worldrt.runtime.scene.projection import NEAR_M
from worldrt.runtime.scene.prompt import ROADS, Labels

OF_BOXES = {"pedestrian": 12, "car": 14, "van": 14, "truck": 15, "bus": 16, "motorcycle": 18, "bicycle": 19}
REACH_M = 80.0
SHRINK = 4
"""Labels are counted, not seen: a picture of a quarter of the size says as much."""
FACES = np.array(((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)))


def label_picture(
    size_px: tuple[int, int], image_from_world: Float64, camera_m: Float64, quads: Float64, boxes: Sequence[Box]
) -> Labels:
    """uint8 (h / 4, w / 4) labels of quads (n, 4, 3) of road, and of boxes over it, the nearest last."""
    image_module, draw_module = pillow()
    image = image_module.new("L", (size_px[0] // SHRINK, size_px[1] // SHRINK))
    pen = draw_module.Draw(image)
    shrunk = np.diag((1 / SHRINK, 1 / SHRINK, 1.0, 1.0)) @ image_from_world
    _fill(pen, image.size, shrunk, quads[np.linalg.norm(quads.mean(1) - camera_m, axis=1) < REACH_M], ROADS)
    known = [(float(np.linalg.norm(box.pose[:3, 3] - camera_m)), i) for i, box in enumerate(boxes)]
    for away_m, index in sorted(known, reverse=True):
        box = boxes[index]
        if away_m < REACH_M and box.label in OF_BOXES:
            _fill(pen, image.size, shrunk, box.corners[FACES], OF_BOXES[box.label])
    return np.asarray(image, np.uint8)


def _fill(pen: object, size_px: tuple[int, int], image_from_world: Float64, quads: Float64, label: int) -> None:
    """Paint quads of which every corner lies before the camera."""
    seen = quads @ image_from_world[:3, :3].T + image_from_world[:3, 3]
    ahead = seen[(seen[:, :, 2] > NEAR_M).all(1)]
    corners = ahead[:, :, :2] / ahead[:, :, 2:]
    touching = (corners.max(1) >= 0).all(1) & (corners.min(1) <= size_px).all(1)
    for quad in corners[touching].tolist():
        pen.polygon([tuple(corner) for corner in quad], fill=label)  # type: ignore[attr-defined]
