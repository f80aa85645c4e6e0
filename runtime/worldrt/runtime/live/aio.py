"""A session for an event loop.

world = AsyncSession(WorldSession(model))
await world.start("a road")
async for frame in world:
    world.control("DL")
    ...
await world.stop()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from worldrt.runtime.live.session import WorldSession, WorldState
from worldrt.runtime.live.stamps import LiveFrame

T = TypeVar("T")


class AsyncSession:
    """Does what a `WorldSession` does in a thread, one thing after another; no call blocks the loop."""

    def __init__(self, session: WorldSession) -> None:
        self.session = session
        self._turn = asyncio.Lock()

    def control(self, name: str | None) -> None:
        """The newest control wins. Raises `InputError`."""
        self.session.control(name)

    async def start(self, prompt: str) -> None:
        await self._do(lambda: self.session.start(prompt))

    async def step(self) -> list[LiveFrame]:
        return await self._do(self.session.step)

    async def prompt(self, text: str) -> None:
        await asyncio.to_thread(self.session.check, text)  # beside the world, as it may take long
        await self._do(lambda: self.session.prompt(text))

    async def reset(self) -> None:
        await self._do(self.session.reset)

    async def snapshot(self) -> WorldState:
        return await self._do(self.session.snapshot)

    async def restore(self, state: WorldState) -> None:
        await self._do(lambda: self.session.restore(state))

    async def recording(self) -> bytes:
        return await self._do(self.session.recording)

    async def branch(self, **options: Any) -> AsyncSession:
        return AsyncSession(await self._do(lambda: self.session.branch(**options)))

    async def stop(self) -> None:
        await self._do(self.session.stop)

    async def __aiter__(self) -> AsyncIterator[LiveFrame]:
        while not self.session.done:
            for frame in await self.step():
                yield frame

    async def _do(self, work: Callable[[], T]) -> T:
        async with self._turn:
            # a thread cannot be stopped: who is cancelled waits, so that nothing else is done to the world meanwhile
            running = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])
                raise
