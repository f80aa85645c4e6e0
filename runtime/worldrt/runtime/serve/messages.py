"""What goes over the socket: JSON that a viewer sends, and pictures that it gets."""

from __future__ import annotations

import json
import struct
from collections import deque
from typing import Any

from worldrt.runtime.live.encode import CLOCK_HZ

MOST_BYTES = 16384
HEADER = struct.Struct(">BBHIQ")
H264, JPEG = 0, 1
SEQUENCES = 1 << 32


def parse(text: str) -> dict[str, Any]:
    """A message of a viewer. Raises `ValueError` for anything but a JSON object with a `type`."""
    try:
        message = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValueError("expected an object with a type")
    return message


def packed(kind: int, key: bool, sequence: int, pts: int, data: bytes) -> bytes:
    """A picture with its header of 16 bytes, big endian: kind (0 H.264 in Annex B, 1 JPEG), whether it is a key, two
    bytes of zero, the `seq` of the newest control of this viewer that it answers (0: none), and its time in
    microseconds."""
    return HEADER.pack(kind, key, 0, sequence, pts * 1_000_000 // CLOCK_HZ) + data


class Sequences:
    """The controls that one viewer sent lately: by the time at which a control came in, which of them it was."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, int]] = deque(maxlen=256)

    def sent(self, at_s: float, sequence: int) -> None:
        """Control `sequence` is handed to the world at `at_s` or just after."""
        self._sent.append((at_s, sequence % SEQUENCES))

    def answered(self, control_s: float | None) -> int:
        """The newest control that a frame answers, whose stamp of the control is `control_s`; 0: none."""
        while len(self._sent) > 1 and control_s is not None and self._sent[1][0] <= control_s:
            self._sent.popleft()
        if control_s is None or not self._sent or self._sent[0][0] > control_s:
            return 0
        return self._sent[0][1]
