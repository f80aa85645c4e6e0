"""Everything that one server has: the world, who looks on, and who drives."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.serve.access import Access
from worldrt.runtime.serve.broadcast import Broadcast
from worldrt.runtime.serve.commands import Commands
from worldrt.runtime.serve.host import Host
from worldrt.runtime.serve.metrics import Metrics
from worldrt.runtime.serve.recorder import Recorder
from worldrt.runtime.serve.wheel import Wheel
from worldrt.runtime.serve.world import World

GOING_AWAY = 1001


class Watcher(Protocol):
    """A viewer, as the hub knows it."""

    name: str
    changed: asyncio.Event

    async def close(self, code: int, text: str) -> None:
        """End the conversation."""
        ...


class Hub:
    """Made in the event loop that serves; `begin` starts the world, `end` stops everything."""

    def __init__(
        self,
        open_world: Callable[[], World],
        *,
        prompt: str = "",
        access: Access | None = None,
        recordings: Path = Path("output/recordings"),
        places: Sequence[str] = (),
        overwrite: bool = False,
        warn: Callable[[str], None] = lambda text: None,
        most_viewers: int = 32,
    ) -> None:
        self.access, self.metrics, self.wheel = access or Access(), Metrics(), Wheel()
        self.broadcast = Broadcast(self.metrics, places, overwrite=overwrite, warn=self._tell)
        self.recorder = Recorder(self.broadcast, recordings, self._changed_elsewhere)
        self.host = Host(open_world, self._ready, self._changed_elsewhere, prompt=prompt)
        self.commands = Commands(self.host, self.wheel, self.recorder, self.metrics, self.changed)
        self.ready = asyncio.Event()  # there are pictures to be had
        self._loop, self._warn = asyncio.get_running_loop(), warn
        self._most_viewers = most_viewers
        self._viewers: dict[str, Watcher] = {}
        self._flooding: dict[str, float] = {}  # when a viewer sent too much last

    def begin(self) -> None:
        """Start to load the world."""
        self.host.begin()

    async def end(self) -> None:
        """Stop the world, finish what is recorded, and send everyone home."""
        await asyncio.gather(*(viewer.close(GOING_AWAY, "the server ends") for viewer in [*self._viewers.values()]))
        if not await asyncio.to_thread(self.host.end):
            self._warn("the world did not stop in time; it is left behind")
        self.commands.close()
        await asyncio.to_thread(self.recorder.stop)
        await asyncio.to_thread(self.broadcast.close)

    @property
    def full(self) -> bool:
        """Whether nobody more may look on."""
        return len(self._viewers) >= self._most_viewers

    def new_name(self) -> str:
        """A name for a viewer, which nobody can guess: it may hold the wheel."""
        return secrets.token_urlsafe(16)

    def join(self, viewer: Watcher) -> None:
        """Somebody looks on."""
        self._viewers[viewer.name] = viewer
        self.changed()

    def leave(self, viewer: Watcher) -> None:
        """Somebody is gone; the wheel goes on to the next."""
        self._viewers.pop(viewer.name, None)
        self._flooding.pop(viewer.name, None)
        self.leave_wheel(viewer.name)

    def flooding(self, name: str) -> int:
        """A viewer sends too much; how many do now."""
        now_s = time.monotonic()
        self._flooding[name] = now_s
        return sum(now_s - at_s < 1 for at_s in self._flooding.values())

    def take_wheel(self, name: str) -> None:
        """Somebody wants to drive."""
        self.wheel.take(name)
        self.changed()

    def leave_wheel(self, name: str) -> None:
        """Somebody lets go: no key is held any more."""
        if self.wheel.driver == name:
            self.host.control(None)
        self.wheel.leave(name)
        self.changed()

    def state(self) -> dict[str, Any]:
        """What everyone may know."""
        world, host, metrics = self.host.world, self.host, self.metrics
        video = None if world is None or host.state == "loading" else world.video
        return {
            "state": host.state,
            "problem": host.problem or self.broadcast.problem(),
            "prompt": host.prompt,
            "fps": round(metrics.fps(), 1),
            "latency_ms": metrics.latency_ms(),
            "viewers": len(self._viewers),
            "driven": self.wheel.driver is not None,
            "waiting": len(self.wheel.waiting),
            "recording": self.recorder.name,
            "recording_problem": self.recorder.problem,
            "snapshots": self.commands.snapshots,
            "video": video and {"width": video.width, "height": video.height, "fps": video.fps},
            "encoder": self.broadcast.encoder(),
            "places": self.broadcast.states(),
            "controls": [] if world is None else list(world.controls),
        }

    def state_for(self, name: str) -> dict[str, Any]:
        """`state`, and what it means for one viewer: `wheel` is `yours`, `asked`, `taken` or `free`."""
        driver = self.wheel.driver
        asked = name in self.wheel.waiting
        wheel = "yours" if driver == name else "asked" if asked else "taken" if driver is not None else "free"
        return {"type": "state"} | self.state() | {"wheel": wheel}

    def changed(self) -> None:
        """Tell everyone."""
        self.metrics.viewers.set(len(self._viewers))
        self.metrics.state.state(self.host.state)
        for viewer in self._viewers.values():
            viewer.changed.set()

    def _ready(self, world: World) -> Callable[[LiveFrame], None]:
        self.broadcast.open(world.video)
        self._loop.call_soon_threadsafe(self.ready.set)
        return self.broadcast.take

    def _tell(self, text: str) -> None:
        self._warn(text)
        self._changed_elsewhere()

    def _changed_elsewhere(self) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.changed)
