"""A moving world for tests of what leaves it, and players of FFmpeg that watch it."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from itertools import pairwise

import av
import numpy as np

from worldrt.runtime.live.places import open_live
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.sinks.base import VideoFormat

FORMAT = VideoFormat(96, 64, 25)
LEVELS = 40  # grey steps of 5, so that a picture tells its index modulo 40


class World(threading.Thread):
    """Puts a picture each frame period, come what may; `longest_s` is the longest that a put has taken."""

    def __init__(self, output):
        super().__init__(daemon=True)
        self.output, self.made, self.longest_s, self.ending = output, 0, 0.0, threading.Event()

    def run(self):
        while not self.ending.wait(1 / FORMAT.fps):
            picture = np.full((FORMAT.height, FORMAT.width, 3), 20 + 5 * (self.made % LEVELS), np.uint8)
            begin = time.perf_counter()
            self.output.put(LiveFrame(self.made, picture, Stamps(decoded=time.monotonic())))
            self.longest_s = max(self.longest_s, time.perf_counter() - begin)
            self.made += 1


@contextmanager
def world(places, **options):
    with open_live(places, FORMAT, **options) as output:
        made = World(output)
        made.start()
        try:
            yield made
        finally:
            made.ending.set()
            made.join()


def until(condition, timeout_s=20.0):
    """Wait for something that happens in another thread."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)


def state(made, index=1):
    return made.output.states[index]


def watch(url, transport="tcp", count=12, steps=None):
    """The steps that FFmpeg's player sees, of pictures in a row; put into `steps` as they come."""
    steps = [] if steps is None else steps
    options = {"rtsp_transport": transport, "timeout": "10000000", "analyzeduration": "300000"}
    # at the end of a stream its last delimiter stands alone, which decoders call invalid
    with av.open(url, options=options) as container, suppress(av.error.InvalidDataError):
        for picture in container.decode(video=0):
            steps.append(round((int(picture.to_ndarray(format="rgb24").mean()) - 20) / 5))
            if len(steps) == count:
                break
    return steps


def are_in_a_row(steps):
    return len(steps) > 1 and all((b - a) % LEVELS == 1 for a, b in pairwise(steps))
