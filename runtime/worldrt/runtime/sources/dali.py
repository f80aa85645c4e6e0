"""Pictures and videos by NVIDIA DALI: its CPU operators, and NVJPEG and NVDEC where there is a GPU.

What the operators of DALI 2.4 do, and this reader makes good or refuses:

- On a CPU `decoders.video` reads VP8, VP9 and Motion JPEG; H.264, HEVC, AV1 and MPEG-4 want a GPU.
- It converts by BT.601 whatever a video declares (its GPU kernel too). Colours of BT.709 and BT.2020 are converted
  again: within 1 of 255 of PyAV where no channel was cut off at 0 or 255; where one was, up to 33 on saturated colours.
- It turns no videos; that is done here. Pictures it turns itself.
- JPEG is decoded by libjpeg-turbo, as Pillow does: bytes differ from FFmpeg's by 3 at most, after scaling by 1.
- Moving GIF, PNG and WebP, and pictures of grey with transparency, are beyond it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.engine.device import open_device
from worldrt.engine.errors import InputError, WorldrtError
from worldrt.runtime.sources._pixels import UPRIGHT, Frame, Turn, opaque
from worldrt.runtime.sources.base import Source, stacked, unreadable
from worldrt.runtime.sources.media import opened

ON_CPU = frozenset(("vp8", "vp9", "mjpeg"))
ON_GPU = ON_CPU | {"h264", "hevc", "av1", "mpeg4"}
CHUNK_FRAMES = 32
BT601 = (0.299, 0.114)
LUMA = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}  # AVCOL_SPC_: weights of red and blue


def check() -> None:
    """Raises `InputError` where DALI is not installed."""
    try:
        importlib.import_module("nvidia.dali")
    except ImportError as error:
        raise InputError(
            f"--input_reader dali: NVIDIA DALI cannot be imported ({error}): pip install nvidia-dali-cuda130; "
            "or --input_reader media"
        ) from error


def open_source(path: Path) -> Source:
    """Decoding is on the GPU where there is one."""
    return DaliSource(path, default_device())


def default_device() -> str:
    """DALI's name of the place to decode at: `mixed` is from the host to the GPU."""
    try:
        open_device("cuda")
    except WorldrtError:
        return "cpu"
    return "mixed"


class DaliSource(Source):
    """A picture or video by DALI on `device`: `cpu` or `mixed`."""

    def __init__(self, path: Path, device: str) -> None:
        super().__init__(path)
        self.device = device

    def frames(self) -> Iterator[Frame]:
        facts = self._facts()
        for start in range(0, facts.total, CHUNK_FRAMES):
            yield from self._read(facts, start, CHUNK_FRAMES)

    def first(self, count: int) -> Frame:
        return self._stacked(self._facts(), 0, count)

    def last(self, count: int) -> Frame:
        facts = self._facts()
        return self._stacked(facts, max(0, facts.total - count), count)

    def _stacked(self, facts: _Facts, start: int, count: int) -> Frame:
        there = min(count, facts.total - start)
        return stacked(self.path, self._read(facts, start, there) if there else (), count)

    def _facts(self) -> _Facts:
        with opened(self.path) as media:
            if media.head.animated_webp:
                raise self._refused("an animated WebP")
            if media.still:
                return _Facts(1, media.codec, still=True)
            if media.codec not in (ON_CPU if self.device == "cpu" else ON_GPU):
                raise self._refused(f"{media.codec} video" + (" without a GPU" if media.codec in ON_GPU else ""))
            total = sum(1 for packet in media.packets() if packet.size)
        with opened(self.path) as media:  # by PyAV, for DALI does not say how frames are declared
            for frame in media.decoded():
                return _Facts(total, media.codec, colorspace=int(frame.colorspace), turn=Turn.of_frame(frame))
        return _Facts(0, "")

    def _refused(self, what: str) -> InputError:
        return InputError(f"{self.path}: DALI does not read {what}; --input_reader media does")

    def _read(self, facts: _Facts, start: int, count: int) -> Frame:
        """`count` frames from `start`, or as many as there are (t, h, w, 3)."""
        try:
            made = self._decoded(facts, start, count)
        except RuntimeError as error:  # whatever DALI has against it
            last_lines = " ".join(str(error).replace("Current pipeline object is no longer valid.", "").split())[-300:]
            raise unreadable(self.path, f"DALI says: ...{last_lines}") from error
        if facts.still:
            return opaque(made)[None]
        return np.stack([facts.turn(recoloured(frame, facts.colorspace)) for frame in made])

    def _decoded(self, facts: _Facts, start: int, count: int) -> np.ndarray[Any, Any]:
        """What one run of a pipeline gives: a picture (h, w, channels), or frames (t, h, w, 3)."""
        dali, fn, types = (importlib.import_module(f"nvidia.dali{part}") for part in ("", ".fn", ".types"))
        file = np.fromfile(self.path, np.uint8)
        pipeline = dali.Pipeline(batch_size=1, num_threads=2, device_id=None if self.device == "cpu" else 0)
        with pipeline:
            encoded = fn.external_source(source=lambda: [file], batch=True)
            if facts.still:
                jpeg = facts.codec == "mjpeg"
                pixels = {"output_type": types.RGB if jpeg else types.ANY_DATA}
                pixels |= {"dtype": types.UINT8 if jpeg else types.UINT16, "jpeg_fancy_upsampling": True}
                node = fn.decoders.image(encoded, device=self.device, **pixels)
            else:
                part = {"start_frame": start, "sequence_length": count, "pad_mode": "none"}
                node = fn.decoders.video(encoded, device=self.device, **part)
            pipeline.set_outputs(node.cpu())
        (made,) = pipeline.run()
        return np.array(made.at(0))


@dataclass(frozen=True)
class _Facts:
    """What has to be known before decoding. `colorspace` is FFmpeg's AVCOL_SPC_ number."""

    total: int
    codec: str
    still: bool = False
    colorspace: int = 2
    turn: Turn = UPRIGHT


def recoloured(frame: Frame, colorspace: int) -> Frame:
    """RGB that was made from Y'CbCr by BT.601, as the declared matrix would have made it."""
    if colorspace not in LUMA:
        return frame
    again = _from_ycbcr(*LUMA[colorspace]) @ np.linalg.inv(_from_ycbcr(*BT601))
    return np.asarray(np.clip(np.rint(frame @ again.T), 0, 255), np.uint8)


def _from_ycbcr(red: float, blue: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """RGB of Y', Cb and Cr around 0, by the weights of red and blue in luma (ITU-R BT.601 and BT.709, item 3)."""
    green = 1 - red - blue
    cr, cb = 2 * (1 - red), 2 * (1 - blue)
    return np.array([[1, 0, cr], [1, -cb * blue / green, -cr * red / green], [1, cb, 0]])
