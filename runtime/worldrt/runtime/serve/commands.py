"""What a driver may ask of the world, over the socket and over HTTP alike."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from worldrt.engine.errors import BlockedError, WorldrtError
from worldrt.runtime.live.keys import control_of
from worldrt.runtime.serve.host import BusyError, Host
from worldrt.runtime.serve.metrics import Metrics
from worldrt.runtime.serve.recorder import Recorder
from worldrt.runtime.serve.wheel import Wheel

LONGEST_PROMPT = 2000
MOST_SNAPSHOTS = 4
TIMEOUT_S = 30.0
NAMES = ("control", "prompt", "reset", "run", "snapshot", "restore", "record")


class Refused(Exception):  # noqa: N818  # it is an answer
    """What was asked is not done; `status` is that of HTTP, the text says why and how to mend it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Commands:
    """Checks and does what is asked. `who` is the name under which somebody may hold the wheel."""

    def __init__(
        self, host: Host, wheel: Wheel, recorder: Recorder, metrics: Metrics, changed: Callable[[], None]
    ) -> None:
        self._host, self._wheel, self._recorder, self._metrics = host, wheel, recorder, metrics
        self._changed = changed
        self._checks = ThreadPoolExecutor(1, "worldrt-check")  # prompts are looked at beside the world, in turn
        self._snapshots: dict[int, tuple[str, Any]] = {}
        self._numbers = itertools.count(1)

    @property
    def snapshots(self) -> list[int]:
        """The numbers of those that are kept."""
        return list(self._snapshots)

    async def replay(self) -> bytes:
        """The recording of the world so far. Raises `Refused`."""
        told: bytes = await self._done(lambda: self._host.call(lambda world: world.recording()))
        return told

    def close(self) -> None:
        """No more is asked."""
        self._checks.shutdown(wait=False, cancel_futures=True)

    async def perform(self, name: str, body: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Do one of `NAMES` and return its answer. Raises `Refused`."""
        try:
            if name not in NAMES:
                raise Refused(404, f"no such command; there are: {', '.join(NAMES)}")
            if not self._wheel.holds(who):
                raise Refused(403, "you are not the driver; take the wheel first")
            answer = await self._perform(name, body)
        except Refused as refused:
            self._metrics.commands.labels(name if name in NAMES else "other", str(refused.status)).inc()
            raise
        self._metrics.commands.labels(name, "200").inc()
        return answer

    async def _perform(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if name == "control":
            control = self.control_in(body)
            self._host.control(control)
            return {"control": control}
        if name == "prompt":
            await self._prompt(_text(body))
        elif name == "reset":
            await self._done(self._host.reset)
        elif name == "run":
            running = _bool(body, "running")
            await self._done(lambda: self._host.set_running(running))
        elif name == "snapshot":
            return {"snapshot": await self._snapshot()}
        elif name == "restore":
            await self._restore(body)
        else:
            wanted = _bool(body, "on")
            return {"recording": await self._recorded(wanted)}
        return {}

    def control_in(self, body: Mapping[str, Any]) -> str | None:
        """The control that a body with `keys` or `control` names. Raises `Refused`."""
        keys, control = body.get("keys"), body.get("control")
        if isinstance(keys, str) and len(keys) <= 8:
            try:
                return control_of(keys)
            except ValueError as error:
                raise Refused(400, str(error)) from None
        world = self._host.world
        names = () if world is None else tuple(world.controls)
        if "control" in body and (control is None or control in names):
            return None if control is None else str(control)
        raise Refused(400, f"expected keys, some of WASD, or control: null or one of {', '.join(names)}")

    async def _prompt(self, text: str) -> None:
        world = self._host.world
        if world is not None:
            await self._done(lambda: self._checks.submit(world.check, text))
        await self._done(lambda: self._host.set_prompt(text))

    async def _snapshot(self) -> int:
        state = await self._done(lambda: self._host.call(lambda world: world.snapshot()))
        number = next(self._numbers)
        self._snapshots[number] = self._host.prompt, state
        while len(self._snapshots) > MOST_SNAPSHOTS:
            del self._snapshots[min(self._snapshots)]
        self._changed()
        return number

    async def _restore(self, body: Mapping[str, Any]) -> None:
        number = body.get("snapshot")
        if type(number) is not int or number not in self._snapshots:
            kept = ", ".join(map(str, self._snapshots)) or "none"
            raise Refused(404, f"no such snapshot; the newest {MOST_SNAPSHOTS} are kept: {kept}")
        prompt, state = self._snapshots[number]
        await self._done(lambda: self._host.restore(state, prompt))

    async def _recorded(self, on: bool) -> str | None:
        try:
            return await asyncio.to_thread(self._recorder.start if on else self._recorder.stop)
        except WorldrtError as error:
            raise Refused(409, str(error)) from None

    async def _done(self, ask: Any) -> Any:
        """The result of what `ask` hands to the world's thread."""
        try:
            future: Future[Any] = ask()
            return await asyncio.wait_for(asyncio.wrap_future(future), TIMEOUT_S)
        except BusyError as error:
            raise Refused(503, str(error)) from None
        except asyncio.TimeoutError:
            raise Refused(503, f"the world did not come to it within {TIMEOUT_S:g} s; try again") from None
        except asyncio.CancelledError:
            if future.cancelled():
                raise Refused(503, "the world has ended") from None
            raise
        except BlockedError as error:
            raise Refused(422, f"blocked: {error}") from None
        except WorldrtError as error:
            raise Refused(422, str(error)) from None


def _text(body: Mapping[str, Any]) -> str:
    text = body.get("text")
    if not isinstance(text, str) or not text.strip():
        raise Refused(400, "text: expected the words of a prompt")
    if len(text) > LONGEST_PROMPT:
        raise Refused(400, f"text: expected at most {LONGEST_PROMPT} characters, got {len(text)}")
    return " ".join(text.split())


def _bool(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool):
        raise Refused(400, f"{name}: expected true or false")
    return value
