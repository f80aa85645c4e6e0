"""Several places at once: every picture is encoded once, by one thread, and goes to whoever reads.

with open_live(["rtsp://127.0.0.1:8554/live", "w.mp4"], VideoFormat(512, 288, 16)) as output:
    output.put(LiveFrame(0, picture, stamps))
    viewer = output.units.reader(capacity=4)        # a page joins and leaves as it likes
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from worldrt.engine import plugin
from worldrt.engine.errors import InputError
from worldrt.runtime.live.encode import AccessUnit, LiveEncoder
from worldrt.runtime.live.fanout import Fanout
from worldrt.runtime.live.sinks import base
from worldrt.runtime.live.sinks._frames import Callback, Pictures
from worldrt.runtime.live.sinks.base import Feed, LiveSink, LiveSinkModule, Passed, SinkState, Takes, Warn
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.sinks.base import VideoFormat, split_place

PACKAGE = base.__name__.rpartition(".")[0]
ENCODER_FRAMES = 4  # pictures that may wait for the encoder
PLACES = "expected NAME.mp4, rtsp://HOST:PORT/PATH, rtsp-serve://127.0.0.1:8554/PATH, png:FOLDER, jpg:FOLDER or null:"


def open_live(
    places: Sequence[str],
    video: VideoFormat,
    *,
    overwrite: bool = False,
    callbacks: Sequence[Callable[[LiveFrame], None]] = (),
    encode: bool = False,
    passed: Passed = lambda place, stamps: None,
    warn: Warn = lambda text: None,
) -> LiveOutput:
    """Open places for a live stream. Raises `InputError` or `OutputError` before anything runs; then nothing is left.

    `encode` opens an encoder also where none of the places needs one, for readers of `LiveOutput.units`. `passed` gets
    each place's name with the stamps of what it sent, `warn` one line whenever a sink's state changes; both are called
    in the sinks' threads.
    """
    sinks: list[LiveSink] = []
    try:
        for place in places:
            sinks.append(open_place(place, video, overwrite=overwrite))
        sinks += [Callback(call) for call in callbacks]
        needed = encode or any(sink.takes == "units" for sink in sinks)
        encoder = LiveEncoder(video) if needed else None
    except BaseException:
        for sink in sinks:
            sink.abandon()
        raise
    return LiveOutput(sinks, encoder, passed, warn)


def open_place(place: str, video: VideoFormat, *, overwrite: bool = False) -> LiveSink:
    """The sink that a place names. Raises `InputError` for an unknown kind."""
    scheme, separator, _ = place.partition("://")
    live = plugin.names(PACKAGE)
    if separator:
        key = scheme.lower().replace("-", "_")
        if key not in live or key == "mp4":
            raise InputError(f"'{scheme}://...': {PLACES}")
    else:
        try:
            key, path = split_place(place)
        except InputError as error:
            raise InputError(f"'{place.rpartition('@')[2]}': {PLACES}") from error  # a mistyped URL may have a password
        if key not in live:
            return Pictures(place, video, overwrite=overwrite)
        place = str(path)
    module: LiveSinkModule = plugin.load(PACKAGE, key)
    return module.open_live(place, video, overwrite=overwrite)


class LiveOutput:
    """A stream on its way out. `frames` and `units` are open to more readers at any time (`units` stay empty without an
    encoder). It is a context manager."""

    def __init__(self, sinks: Sequence[LiveSink], encoder: LiveEncoder | None, passed: Passed, warn: Warn) -> None:
        self.encoder = encoder
        self.frames: Fanout[LiveFrame] = Fanout()
        want_key = encoder.request_key if encoder is not None else (lambda: None)
        self.units: Fanout[AccessUnit] = Fanout(is_key=lambda unit: unit.key, want_key=want_key)
        sources: dict[str, Fanout[Any]] = {"frames": self.frames, "units": self.units}
        self._feeds = [Feed(sink, sources[sink.takes], passed, warn) for sink in sinks]
        self._encoding: Feed | None = None
        if encoder is not None:
            self._encoding = Feed(_Encoding(encoder, self.units), self.frames, _unmeasured, warn)

    @property
    def states(self) -> list[SinkState]:
        """Of the encoder, where there is one, and of every place."""
        return [feed.state for feed in ([self._encoding] if self._encoding else []) + self._feeds]

    def put(self, frame: LiveFrame) -> None:
        """Hand over a frame, whose memory may not be changed afterwards. Never waits."""
        self.frames.put(frame)

    def close(self, timeout_s: float = 10.0) -> list[SinkState]:
        """End the stream: places get what waits for them, files become whole. Returns how everything ended; a sink that
        is not through after `timeout_s` is left behind, as its state says."""
        until_s = time.monotonic() + timeout_s
        self.frames.close()
        if self._encoding is not None:
            self._encoding.join(timeout_s / 2)
        self.units.close()
        for feed in self._feeds:
            feed.join(max(0.0, until_s - time.monotonic()))
        return self.states

    def __enter__(self) -> LiveOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Encoding:
    """The encoder as a reader of frames. When it can do no more the stream of units ends, and the files with it."""

    takes: Takes = "frames"
    capacity = ENCODER_FRAMES

    def __init__(self, encoder: LiveEncoder, units: Fanout[AccessUnit]) -> None:
        self._encoder, self._units = encoder, units
        self.place = "encoder"

    def abandon(self) -> None:
        """Nothing to give back."""

    def run(self, feed: Feed) -> None:
        feed.phase("sending", reason=self._told())
        try:
            for frame in feed:
                self._units.put(self._encoder.encode(frame))
        finally:
            self._units.close()

    def _told(self) -> str:
        """Which encoder runs, and why not another."""
        return self._encoder.name + "".join(f" (no {reason})" for reason in self._encoder.refused)


def _unmeasured(place: str, stamps: Stamps) -> None:
    """Encoding is no sending."""
