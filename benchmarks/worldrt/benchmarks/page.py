"""`trt-bench page`: from the press of a key to the first picture that answers it, in a headless browser.

The world is one that costs nothing and answers at its next frame, so what is measured is everything but the model:
socket, server, encoder, decoder and canvas. A press waits for the next frame first, half a period on average.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldrt.benchmarks.results import Table
from worldrt.benchmarks.statistics import quantile
from worldrt.engine.errors import BackendError
from worldrt.runtime.live.stamps import LiveFrame, Stamps
from worldrt.runtime.serve.hub import Hub
from worldrt.runtime.serve.run import bind, serving
from worldrt.runtime.sinks.base import VideoFormat

FORMAT = VideoFormat(512, 288, 16)
WAYS = {"H.264, WebCodecs": None, "JPEG": "delete window.VideoDecoder"}
PATIENCE_S = 20.0


class Flashing:
    """A world of noise whose brightness is the control."""

    video, controls, done = FORMAT, ("D", "DL", "DR", "B"), False

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._noise = rng.integers(0, 64, (8, *FORMAT.shape), np.uint8)
        self._pressed: tuple[str | None, float | None] = None, None
        self._index, self._due_s = 0, 0.0

    def start(self, prompt: str) -> None:
        self._due_s = time.monotonic()

    def step(self) -> list[LiveFrame]:
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._due_s = max(self._due_s, time.monotonic() - 1) + 1 / FORMAT.fps
        control, control_s = self._pressed
        level = 40 * (1 + self.controls.index(control)) if control else 0
        picture = self._noise[self._index % len(self._noise)] + np.uint8(level)
        self._index += 1
        return [LiveFrame(self._index - 1, picture, Stamps(control_s, time.monotonic(), decoded=time.monotonic()))]

    def control(self, name: str | None) -> None:
        self._pressed = name, time.monotonic()

    def check(self, prompt: str) -> None: ...

    def prompt(self, text: str) -> None: ...

    def reset(self) -> None: ...

    def snapshot(self) -> None: ...

    def restore(self, state: Any) -> None: ...

    def recording(self) -> bytes:
        return b""

    def stop(self) -> None: ...


def run(presses: int, scratch: Path, say: Callable[[str], None]) -> tuple[list[Table], dict[str, list[float]]]:
    """`presses` of a key for each way of showing pictures."""
    samples, rows = {}, []
    with _browser() as browser:
        for way, script in WAYS.items():
            say(way)
            with _served(scratch) as (url, hub):
                page = browser.new_page()
                if script:
                    page.add_init_script(script)
                page.goto(url)
                latencies, server = _pressed(page, presses), hub.metrics.latency_ms() or {}
                page.close()
            samples[f"{way}_ms"] = latencies
            p50, p95 = quantile(latencies, 0.5), quantile(latencies, 0.95)
            rows.append((way, len(latencies), p50, p95, server.get("p50"), server.get("p95")))
    columns = ("way", "presses", "key to picture p50_ms", "p95_ms", "until it is sent p50_ms", "p95_ms")
    notes = (
        f"{FORMAT.width}x{FORMAT.height} at {FORMAT.fps} fps; the wait for the next frame is inside: "
        f"{500 / FORMAT.fps:.0f} ms on average, {1000 / FORMAT.fps:.0f} ms at most.",
    )
    return [Table("Key to picture, with a world that costs nothing", columns, tuple(rows), notes)], samples


def _pressed(page: Any, presses: int) -> list[float]:
    """The latencies that the page measured, one for each press and one for each release."""
    latencies: list[float] = []
    _until(page, "worldrt.numbers.drawn > 5")
    rng = np.random.default_rng(1)
    for number in range(presses):
        for act in (page.keyboard.down, page.keyboard.up):
            before = page.evaluate("worldrt.numbers.answered")
            time.sleep(0.05 + rng.random() / FORMAT.fps)
            act("wad"[number % 3])
            _until(page, f"worldrt.numbers.answered > {before}")
            latencies.append(page.evaluate("worldrt.numbers.latencies_ms.at(-1)"))
    return latencies


def _until(page: Any, condition: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not page.evaluate(condition):
        if time.monotonic() > end_s:
            raise BackendError(f"the page did not show in {PATIENCE_S:g} s what was waited for: {condition}")
        time.sleep(0.005)


@contextmanager
def _served(scratch: Path) -> Iterator[tuple[str, Hub]]:
    """A server in a thread of its own."""
    made: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, Hub]] = []
    started = threading.Event()

    async def live() -> None:
        hub, stop = Hub(Flashing, recordings=scratch), asyncio.Event()
        made.append((asyncio.get_running_loop(), stop, hub))
        async with serving(hub, listening):
            started.set()
            await stop.wait()

    with bind("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
        thread.start()
        if not started.wait(PATIENCE_S):
            raise BackendError("the server did not start")
        loop, stop, hub = made[0]
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/", hub
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(PATIENCE_S)


@contextmanager
def _browser() -> Iterator[Any]:
    """Headless Chromium. Raises `BackendError` where there is none."""
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if place is None:
        raise BackendError("trt-bench page needs Chromium: apt-get install chromium")
    try:
        playwright: Any = importlib.import_module("playwright.sync_api")
    except ImportError as error:
        raise BackendError("trt-bench page needs Playwright: pip install playwright") from error
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=place, args=flags)
        try:
            yield browser
        finally:
            browser.close()
