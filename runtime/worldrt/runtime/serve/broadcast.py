"""What becomes of a frame: encoded once for everyone, as H.264 and, where a browser needs it, as JPEG."""

from __future__ import annotations

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
        self._jpeg: JpegEncoder | None = None
        self._pictures: Fanout[Picture] = Fanout()
        self.output: LiveOutput | None = None
        self.video: VideoFormat | None = None

    def open(self, video: VideoFormat) -> None:
        """Open the encoder and the places. Raises `InputError` or `OutputError`."""
        self._jpeg, self.video = JpegEncoder(video), video
        places, overwrite = self._places, self._overwrite
        callbacks = [self._take_for_jpeg]
        self.output = open_live(places, video, overwrite=overwrite, callbacks=callbacks, encode=True, warn=self._warn)

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

    def close(self) -> None:
        """End what is read, and finish the places."""
        if self.output is not None:
            self.output.close()
        self._pictures.close()

    def _take_for_jpeg(self, frame: LiveFrame) -> None:
        """In a thread of its own."""
        if self._pictures.readers and self._jpeg is not None and self.video is not None:
            data = self._jpeg.encode(frame)
            pts = round(frame.index * CLOCK_HZ / self.video.fps)
            self._pictures.put(Picture(data, pts, frame.stamps.at(encoded=time.monotonic())))
