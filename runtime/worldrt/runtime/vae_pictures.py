"""Decoding of pictures by themselves: a VAE that knows no time, and frames of several views at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from worldrt.engine.session import Call

if TYPE_CHECKING:
    from worldrt.runtime.vae import Float32, Frame, VaeCodec


class PictureDecoder:
    """A call with latents (1, C, t, V, h, w) yields uint8 frames (V, H, W, 3), or planes (V, 3 H / 2, W); each belongs
    to the caller. Between two calls its graph and buffers may go to make room."""

    def __init__(self, codec: VaeCodec, views: int, rows: int, columns: int) -> None:
        self._codec, self._axes = codec, {"batch": views, "rows": rows, "columns": columns}
        self._call: Call | None = None

    def __call__(self, latents_BCTHW: Float32) -> Iterator[Frame]:
        for i in range(latents_BCTHW.shape[2]):
            if self._call is None:
                (self._call,) = self._codec.bound("decode", 1, self._axes)
            call = self._call
            views = latents_BCTHW[0, :, i].swapaxes(0, 1)
            self._codec.upload(call["latent"], np.expand_dims(views, 2))
            call.run()
            yield np.array(self._codec.device.download(call["frames"])[:, 0])

    def state(self) -> None:
        """Nothing: a frame depends on no other."""

    def restore(self, state: Any) -> None:
        """Nothing is to be put back."""

    def park(self) -> None:
        """Let graph and buffers go."""
        self._call = None
