"""What a denoiser of several views takes of a frame's layout: cameras as numbers, images as residuals."""

from __future__ import annotations

from typing import Any

import numpy as np

from worldrt.engine.bundle import Layout
from worldrt.engine.errors import InputError
from worldrt.runtime.conditions.base import ConditionFrame
from worldrt.runtime.denoise import DenoiserModel
from worldrt.runtime.images import resize

Float32 = np.ndarray[Any, np.dtype[np.float32]]
GRAPH = "layout"


def camera_numbers(frame: ConditionFrame) -> Float32:
    """float32 (V, 11): frames per second; focal lengths and centre (x, y of each) over height, height, width, height of
    the condition images, which is how the model was trained; the direction ahead and the place of each camera in
    metres, as the vehicle has them."""
    width, height = frame.image_size
    lens, pose = frame.cameras.intrinsics, frame.cameras.transforms
    columns = [
        np.full(frame.views, frame.fps),
        lens[:, 0, 0] / height,
        lens[:, 1, 1] / height,
        lens[:, 0, 2] / width,
        lens[:, 1, 2] / height,
        *pose[:, :3, 2].T,
        *pose[:, :3, 3].T,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def layout_image(frame: ConditionFrame, layout: Layout, width: int, height: int) -> Float32:
    """float32 (V, channels, height, width) from 0 to 1: the images of the layout, one after the other. Raises
    `InputError` where one is missing, or there are not as many views as the model has."""
    missing = [name for name in layout.images if name not in frame.images]
    if missing or frame.views != layout.views:
        raise InputError(
            f"conditions: expected {', '.join(layout.images)} of {layout.views} views, got "
            f"{', '.join(frame.images)} of {frame.views}; choose cameras that fit the model"
        )
    parts = [resize(frame.images[name], width, height) for name in layout.images]
    joined: Float32 = np.concatenate(parts, axis=3).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    return joined


class LayoutEncoder:
    """Runs the graph `layout` of a denoiser; one call at a time."""

    def __init__(self, model: DenoiserModel, layout: Layout, width: int, height: int) -> None:
        self._model, self._layout, self._size = model, layout, (width, height)
        graph = model.spec.graphs[GRAPH]
        channels = 3 * len(layout.images)
        self._shape = (1, layout.views, channels, height, width)
        self._axes = {"batch": 1, "views": layout.views} | _patches(model, width, height)
        self._call = model.sessions[GRAPH].bind(self._axes, dict(model.weights(GRAPH)))
        self._output = graph.outputs[0].name
        self._nothing: Float32 | None = None

    def residual(self, frame: ConditionFrame) -> Float32:
        """float32 (stages, V, tokens, D) of a frame's layout. Raises `InputError`."""
        return self._run(layout_image(frame, self._layout, *self._size)[None])

    def nothing(self) -> Float32:
        """The same where no layout is asked for."""
        if self._nothing is None:
            self._nothing = self._run(np.full(self._shape, self._layout.nothing, np.float32))
        return self._nothing

    def _run(self, image: Float32) -> Float32:
        device = self._model.device
        device.upload(self._call["image"], np.ascontiguousarray(image))
        self._call.run()
        return np.array(device.download(self._call[self._output])[0])


def _patches(model: DenoiserModel, width: int, height: int) -> dict[str, int]:
    multiple = model.spec.size_multiple_px
    rows, columns = height // multiple, width // multiple
    return {"rows": rows, "columns": columns, "tokens": rows * columns}
