"""Access units into FFmpeg's muxers, as they are."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av

from worldrt.runtime.live.encode import CLOCK_HZ, AccessUnit


def open_muxer(target: Any, kind: str, options: dict[str, str], first: AccessUnit) -> tuple[Any, Any]:
    """A container for access units that begin with the key `first`, and its stream."""
    with av.open(io.BytesIO(first.picture), format="h264") as given:  # parses what headers say of the stream
        container = av.open(target, "w", format=kind, options=options)
        stream = container.add_stream_from_template(given.streams.video[0], opaque=True)
    stream.time_base = Fraction(1, CLOCK_HZ)
    return container, stream


def packet(unit: AccessUnit, data: bytes, stream: Any, fps: int) -> Any:
    """An access unit for a muxer."""
    made: Any = av.Packet(data)
    made.pts = made.dts = unit.pts
    made.duration, made.time_base = CLOCK_HZ // fps, Fraction(1, CLOCK_HZ)
    made.is_keyframe, made.stream = unit.key, stream
    return made
