"""`trt-bench rtsp`: from a picture to a player, over RTSP on this machine.

The number of a picture is drawn into it, in black and white blocks; the player, FFmpeg's with its latency options,
reads it after decoding. So encoding, the server and decoding are inside, and the player's waiting, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import av
import numpy as np

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.statistics import quantile
from worldrt.engine.errors import BackendError
from worldrt.runtime.live.encode import AccessUnit, LiveEncoder
from worldrt.runtime.live.rtsp.publisher import Publisher
from worldrt.runtime.live.rtsp.relay import Relay
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.sinks.base import VideoFormat

FORMAT = VideoFormat(512, 288, 16)
BLOCK, BITS = 32, 14
PATIENCE_S = 20.0
PLAYER = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "32", "analyzeduration": "0", "timeout": "5000000"}
Send = Callable[[AccessUnit], None]


def run(pictures: int, say: Callable[[str], None]) -> tuple[list[Table], dict[str, list[float]]]:
    """`pictures` seen in each way."""
    samples, rows = {}, []
    for way, push, transport, delimited in (
        ("served, TCP", False, "tcp", True),
        ("served, TCP, without delimiters", False, "tcp", False),
        ("served, UDP", False, "udp", True),
        ("pushed to a server, TCP", True, "tcp", True),
    ):
        say(way)
        with Relay(port=0) as relay, _connected(relay, push, delimited) as send:
            values = _seen(send, f"rtsp://127.0.0.1:{relay.port}/live", transport, pictures)
        samples[f"{way}_ms"] = values
        rows.append((way, len(values), quantile(values, 0.5), quantile(values, 0.95)))
    note = (
        f"{FORMAT.width}x{FORMAT.height} at {FORMAT.fps} fps, a period is {1000 / FORMAT.fps:.1f} ms. "
        f"Player: FFmpeg, {', '.join(f'{name} {value}' for name, value in PLAYER.items())}."
    )
    return [Table("From a picture to a player", ("way", "pictures", "p50_ms", "p95_ms"), tuple(rows), (note,))], samples


@contextmanager
def _connected(relay: Relay, push: bool, delimited: bool) -> Iterator[Send]:
    """What takes the encoder's units."""
    if not push:
        stream = relay.stream("live", lambda: None)
        yield lambda unit: stream.send(unit if delimited else replace(unit, data=unit.picture))
        return
    publishers: list[Publisher] = []

    def send(unit: AccessUnit) -> None:
        if not publishers:
            publishers.append(Publisher(f"rtsp://127.0.0.1:{relay.port}/live", unit, 5.0))
        publishers[0].send(unit)

    try:
        yield send
    finally:
        for publisher in publishers:
            publisher.close()


def _seen(send: Send, url: str, transport: str, pictures: int) -> list[float]:
    """Milliseconds from the making of a picture to its sight, after a second to settle."""
    made_s: dict[int, float] = {}
    values: list[float] = []
    ending = threading.Event()
    player = threading.Thread(target=_play, args=(url, transport, made_s, values, pictures + FORMAT.fps, ending))
    encoder = LiveEncoder(FORMAT)
    noise = np.random.default_rng(0).integers(60, 160, FORMAT.shape, np.uint8)
    index, due_s = 0, time.monotonic()
    until_s = due_s + PATIENCE_S + 2 * pictures / FORMAT.fps
    while not ending.is_set() and time.monotonic() < until_s:
        picture = _numbered(noise, index)
        made_s[index] = time.monotonic()
        send(encoder.encode(LiveFrame(index, picture)))
        if index == 1:
            player.start()
        index, due_s = index + 1, due_s + 1 / FORMAT.fps
        time.sleep(max(0.0, due_s - time.monotonic()))
    if not ending.is_set():
        raise BackendError(f"{url}: the player saw {len(values)} pictures of {pictures} in time")
    player.join()
    return values[FORMAT.fps :]


def _play(
    url: str, transport: str, made_s: dict[int, float], values: list[float], count: int, ending: threading.Event
) -> None:
    with suppress(av.FFmpegError), av.open(url, options=PLAYER | {"rtsp_transport": transport}) as container:
        container.streams.video[0].thread_type = "NONE"
        for picture in container.decode(video=0):
            index = _number(picture.to_ndarray()[: FORMAT.height])
            if index in made_s:
                values.append(1000 * (time.monotonic() - made_s[index]))
            if len(values) == count:
                break
    if len(values) == count:
        ending.set()


def _numbered(noise: np.ndarray[Any, Any], index: int) -> np.ndarray[Any, Any]:
    picture = np.roll(noise, index, 1)
    for bit in range(BITS):
        picture[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (index >> bit & 1)
    return picture


def _number(luma: np.ndarray[Any, Any]) -> int:
    means = luma[:BLOCK, : BITS * BLOCK].reshape(BLOCK, BITS, BLOCK).mean((0, 2))
    return sum(1 << bit for bit in range(BITS) if means[bit] > 128)
