"""Sessions in an event loop."""

from __future__ import annotations

import asyncio

import numpy as np

from worldrt.runtime.live.aio import AsyncSession
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written

from .worlds import ToyModel, offline


def test_an_event_loop_gets_the_same_frames_and_goes_on_meanwhile():
    model, controls = ToyModel(), ["D", "DL"] * 6
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.002)
            ticks += 1

    async def watch():
        steering = Written(controls, -1)
        world = AsyncSession(WorldSession(model, steering=steering, pace=PaceOptions(400.0)))
        ticking = asyncio.ensure_future(tick())
        await world.start("a road")
        pictures = [frame.picture async for frame in world]
        await world.stop()
        ticking.cancel()
        return pictures

    got, expected = asyncio.run(watch()), offline(model, controls, "a road")
    assert len(got) == len(expected) and all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
    assert ticks > 5


def test_commands_go_between_steps_and_a_cancelled_step_leaves_the_world_whole():
    async def drive():
        world = AsyncSession(WorldSession(ToyModel(), pace=PaceOptions(100.0)))
        await world.start("a road")
        step = asyncio.ensure_future(world.step())
        await asyncio.sleep(0)
        step.cancel()
        state, _ = await asyncio.gather(world.snapshot(), world.prompt("rain"))
        other = await world.branch()
        await world.restore(state)
        await world.reset()
        world.control("DL")
        frames = [frame for _ in range(20) for frame in await world.step()]
        await other.stop()
        await world.stop()
        return frames

    assert asyncio.run(drive())
