"""What becomes of a frame: encoded once for everyone, as H.264 and, where a browser needs it, as JPEG."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worldrt.runtime.live.encode import CLOCK_HZ
from worldrt.runtime.live.fanout import Fanout, Reader
from worldrt.runtime.live.places import LiveOutput, open_live
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.serve.jpeg import JpegEncoder
from worldrt.runtime.serve.metrics import Metrics
from worldrt.runtime.sinks.base import VideoFormat

WAITING_PICTURES = 4
Kind = Literal["h264", "jpeg"]


@dataclass(frozen=True)
class Picture:
    """A JPEG, and the time (at 90 kHz) and the stamps of its frame. Each is a key, for it stands by itself."""

    data: bytes
    pts: int
    stamps: Stamps
    key: bool = True


class Broadcast:
    """Takes the frames of one world. `places` get them too, as with `open_live`; `warn` gets what they say."""

    def __init__(
        self, metrics: Metrics, places: Sequence[str] = (), *, overwrite: bool = False, warn: Callable[[str], None]
    ) -> None:
        self._metrics, self._places, self._overwrite, self._warn = metrics, places, overwrite, warn
        self._pictures: Fanout[Picture] = Fanout()
        self.output: LiveOutput | None = None
        self.video: VideoFormat | None = None

    def open(self, video: VideoFormat) -> None:
        """Open the encoder and the places. Raises `InputError` or `OutputError`."""
        output = open_live(self._places, video, overwrite=self._overwrite, encode=True, warn=self._warn)
        self._jpegs = threading.Thread(target=self._make_jpegs, args=(output.frames.reader(2), JpegEncoder(video)))
        self._jpegs.start()
        self.video, self.output = video, output

    def take(self, frame: LiveFrame) -> None:
        """Give a frame to everyone. Never waits."""
        assert self.output is not None
        self._metrics.frame(frame.stamps)
        self.output.put(frame)

    def reader(self, kind: Kind, name: str) -> Reader[Any]:
        """`AccessUnit`s or `Picture`s for a viewer."""
        assert self.output is not None
        if kind == "jpeg":
            return self._pictures.reader(WAITING_PICTURES, name)
        return self.output.units.reader(WAITING_PICTURES, name)

    def want_key(self) -> None:
        """Let a key come soon. From any thread."""
        if self.output is not None:
            self.output.units.want_key()

    def encoder(self) -> str:
        """The name of the encoder that opened."""
        return "" if self.output is None or self.output.encoder is None else self.output.encoder.name

    def states(self) -> list[str]:
        """How the places are, a line for each."""
        states = [] if self.output is None else self.output.states[1:]  # the first is the encoder's
        return [str(state) for state in states[: len(self._places)]]

    def problem(self) -> str:
        """Why there are no pictures, where the encoder has failed."""
        encoder = None if self.output is None else self.output.states[0]
        return f"no pictures: {encoder.detail}" if encoder is not None and encoder.phase == "failed" else ""

    def close(self) -> None:
        """End what is read, and finish the places."""
        if self.output is not None:
            self.output.close()
            self._jpegs.join()
        self._pictures.close()

    def _make_jpegs(self, frames: Reader[LiveFrame], encoder: JpegEncoder) -> None:
        """In a thread of its own, and only while somebody looks."""
        for frame in frames:
            if self._pictures.readers:
                data, pts = encoder.encode(frame), round(frame.index * CLOCK_HZ / encoder.fps)
                self._pictures.put(Picture(data, pts, frame.stamps.at(encoded=time.monotonic())))
