"""Decoded frames of FFmpeg as upright 8-bit RGB.

The scale filter converts by the matrix (BT.601, BT.709, BT.2020) and the range that a frame declares. Where it declares
none, FFmpeg takes BT.601 and limited range, as the official code does. Exact rounding and chroma that is interpolated
are asked for: without them swscale takes short cuts that are off by up to 8 of 255 on smooth pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np

Frame = np.ndarray[Any, np.dtype[np.uint8]]
EXACT = "flags=bilinear+accurate_rnd+full_chroma_int+full_chroma_inp:out_range=full"


@dataclass(frozen=True)
class Turn:
    """How stored pixels become upright ones: rows and columns are swapped first, then the picture is mirrored."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of_exif(cls, orientation: int) -> Turn:
        """By the EXIF tag 0x0112, 1 to 8; any other value is 1, upright."""
        mirrors = {2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}.get(orientation, (0, 0))
        return cls(orientation in (5, 6, 7, 8), bool(mirrors[0]), bool(mirrors[1]))

    @classmethod
    def of_frame(cls, frame: Any) -> Turn:
        """By the display matrix of a video: 3x3 int32, of which the first four say x' = a x + c y, y' = b x + d y.
        Only quarter turns and mirrors are taken; a skewed one goes to the nearest."""
        try:
            matrix = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # PyAV up to 18.1 knows no EXIF side data, and then gives none at all
            return _TURNS.get(round(frame.rotation / 90) % 4, cls())
        if matrix is None:
            return cls()
        a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32, 5))
        transpose = abs(a) < abs(b)
        return cls(transpose, (c if transpose else a) < 0, (b if transpose else d) < 0)

    def __call__(self, frame: Frame) -> Frame:
        upright = frame.transpose(1, 0, 2) if self.transpose else frame
        upright = upright[:, ::-1] if self.mirror_x else upright
        return np.ascontiguousarray(upright[::-1] if self.mirror_y else upright)


UPRIGHT = Turn()
_TURNS = {1: Turn(True, False, True), 2: Turn(False, True, True), 3: Turn(True, True, False)}


def rgb(frame: Any) -> Frame:
    """uint8 RGB (h, w, 3) of a decoded frame, not turned yet."""
    form = frame.format
    deep = max(part.bits for part in form.components) > 8 and (form.is_rgb or len(form.components) < 3)
    clear = form.has_palette or any(part.is_alpha for part in form.components)
    target = ("rgba64le" if clear else "rgb48le") if deep else ("rgba" if clear else "rgb24")
    return opaque(_converted(frame, target).to_ndarray())


def opaque(pixels: np.ndarray[Any, Any]) -> Frame:
    """uint8 RGB of uint8 or uint16 grey, grey + alpha, RGB or RGBA (h, w, 1 to 4): over black, rounded to nearest."""
    most = 257 if pixels.dtype == np.uint16 else 1
    colours = pixels[..., :3] if pixels.shape[-1] > 2 else pixels[..., :1].repeat(3, -1)
    if pixels.shape[-1] in (2, 4):
        alpha = pixels[..., -1:].astype(np.float32) / (255 * most)
        return np.asarray(np.rint(colours * alpha / most), np.uint8)
    return (
        np.ascontiguousarray(colours) if most == 1 else np.asarray((colours.astype(np.uint32) + 128) // 257, np.uint8)
    )


def _converted(frame: Any, target: str) -> Any:
    graph = av.filter.Graph()
    size = {"width": frame.width, "height": frame.height}
    source, sink = graph.add_buffer(**size, format=frame.format, time_base=Fraction(1, 1000)), graph.add("buffersink")
    graph.link_nodes(source, graph.add("scale", EXACT), graph.add("format", target), sink).configure()
    source.push(frame)
    return sink.pull()
