"""Frames as a Qwen2-VL or Qwen2.5-VL takes them: sized, normalised, and cut into patches.

The order of a patch is that of the models' convolution; patches that are merged into one token lie side by side.
Written in numpy, so that neither torchvision nor a video reader of theirs is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Any

import numpy as np

from worldrt.runtime.reason.chat import Frames
from worldrt.runtime.reason.pictures import scaled

Float32 = np.ndarray[Any, np.dtype[np.float32]]
TOKEN_PX = 28 * 28  # pixels that one token of Qwen2.5-VL stands for
PICTURE_PX = (256 * TOKEN_PX, 1280 * TOKEN_PX)  # least and most of a picture
FRAME_PX = (128 * TOKEN_PX, 768 * TOKEN_PX)  # and of a frame of a video


@dataclass(frozen=True)
class Vision:
    """Sizes of a vision tower: `patch` pixels a side, `temporal` frames a patch, `merge` patches a side a token."""

    patch: int = 14
    temporal: int = 2
    merge: int = 2
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def of(cls, config: Any, preprocessor: Mapping[str, Any]) -> Vision:
        """From a model's `vision_config`, and the means and deviations of its `preprocessor_config.json`."""
        mean, std = (tuple(preprocessor.get(f"image_{name}") or getattr(cls, name)) for name in ("mean", "std"))
        return cls(config.patch_size, config.temporal_patch_size, config.spatial_merge_size, mean, std)


def fitted(width: int, height: int, factor: int, least_px: int, most_px: int) -> tuple[int, int]:
    """Width and height near the given ones: multiples of `factor`, from `least_px` to `most_px` pixels together."""
    sizes = [max(factor, round(side / factor) * factor) for side in (width, height)]
    if sizes[0] * sizes[1] > most_px:
        shrink = sqrt(width * height / most_px)
        sizes = [max(factor, floor(side / shrink / factor) * factor) for side in (width, height)]
    elif sizes[0] * sizes[1] < least_px:
        grow = sqrt(least_px / (width * height))
        sizes = [ceil(side * grow / factor) * factor for side in (width, height)]
    return sizes[0], sizes[1]


def patches(frames: Frames, vision: Vision) -> tuple[Float32, tuple[int, int, int]]:
    """Patches (N, 3 * temporal * patch * patch) of frames (t, h, w, 3), and how many there are in time, height and
    width. A last frame is repeated where `temporal` asks for more."""
    least, most = PICTURE_PX if len(frames) == 1 else FRAME_PX
    width, height = fitted(frames.shape[2], frames.shape[1], vision.patch * vision.merge, least, most)
    sized = [scaled(frame, width, height) for frame in frames]
    frames = np.stack(sized + sized[-1:] * (-len(sized) % vision.temporal))
    values = (frames.astype(np.float32) / 255 - np.array(vision.mean, np.float32)) / np.array(vision.std, np.float32)
    t, h, w = len(frames) // vision.temporal, height // vision.patch, width // vision.patch
    m, p = vision.merge, vision.patch
    blocks = values.reshape(t, vision.temporal, h // m, m, p, w // m, m, p, 3)
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)  # time, merged rows and columns, in a merge, colour, ...
    return np.ascontiguousarray(ordered.reshape(t * h * w, -1), np.float32), (t, h, w)
