"""Faces, found by RetinaFace with the thresholds of Cosmos-Guardrail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from worldrt.runtime.safety.base import Box, Frame
from worldrt.runtime.safety.libraries import Weights, library, loading, pickled
from worldrt.runtime.safety.retinaface import Float32, detect

CONFIDENCE = 0.7
OVERLAP = 0.4
CANDIDATES = 5000
FACES = 750
SMALLEST_PX = 20


class Faces:
    """`file` is `Resnet50_Final.pth`."""

    name = "face model"

    def __init__(self, file: Path) -> None:
        self._file = file
        self._weights: Weights | None = None

    def to(self, device: str) -> None:
        self._weights = {name: tensor.to(device) for name, tensor in self._loaded().items()}

    def unload(self) -> None:
        self._weights = None

    def boxes(self, frame: Frame) -> list[Box]:
        boxes, scores = detect(frame, self._loaded())
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError("places that are no numbers")
        sure = scores > CONFIDENCE
        return [box for b in distinct(boxes[sure], scores[sure]) if large(box := _whole(b))]

    def _loaded(self) -> Weights:
        if self._weights is None:
            weights = pickled(self._file)
            with loading(self._file), library("torch").inference_mode():  # a try finds what is missing
                detect(np.zeros((32, 32, 3), np.uint8), weights)
            self._weights = weights
        return self._weights


def distinct(boxes: Float32, scores: Float32) -> Float32:
    """The surest boxes, without those that cover much the same as a surer one (non-maximum suppression)."""
    left = boxes[np.argsort(-scores, kind="stable")[:CANDIDATES]]
    kept: list[Any] = []
    while len(left) and len(kept) < FACES:
        kept.append(left[0])
        left = left[1:][_overlap(left[0], left[1:]) <= OVERLAP]
    return np.array(kept, np.float32).reshape(-1, 4)


def _overlap(box: Float32, others: Float32) -> Float32:
    """Intersection over union; both edges of a box count as inside it."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low + 1, 0), axis=1)
    share: Float32 = shared / (np.prod(box[2:] - box[:2] + 1) + np.prod(others[:, 2:] - others[:, :2] + 1, 1) - shared)
    return share


def _whole(box: Float32) -> Box:
    left, top, right, bottom = (int(edge) for edge in box)
    return left, top, right, bottom


def large(box: Box) -> bool:
    """Whether a face is large enough to be known by."""
    return box[2] - box[0] >= SMALLEST_PX and box[3] - box[1] >= SMALLEST_PX
