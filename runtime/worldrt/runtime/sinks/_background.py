"""Work on frames in a thread of its own, so that making and writing them overlap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Frame = np.ndarray[Any, np.dtype[np.uint8]]
WAITING_FRAMES = 8


@contextmanager
def in_background(work: Callable[[Frame], None]) -> Iterator[Callable[[Frame], None]]:
    """Give a function that queues a frame for `work`. At the end of the block all frames have been worked on.

    An error of `work` is raised by the next call, or at the end; after an error in the block waiting frames are
    dropped.
    """
    waiting: queue.Queue[Frame | None] = queue.Queue(WAITING_FRAMES)
    errors: list[BaseException] = []

    def loop() -> None:
        while (frame := waiting.get()) is not None:
            if errors:
                continue  # drain, so that a writer that waits is let go
            try:
                work(frame)
            except BaseException as error:
                errors.append(error)

    def put(frame: Frame) -> None:
        if errors:
            raise errors[0]
        waiting.put(frame)

    thread = threading.Thread(target=loop, name="worldrt-sink", daemon=True)
    thread.start()
    try:
        yield put
    except BaseException as error:
        errors.append(error)
        raise
    finally:
        waiting.put(None)
        thread.join()
    if errors:
        raise errors[0]
