"""Pools on a cluster of Ray on this machine: workers are killed, pictures stay."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest

from worldrt.runtime.live.controls import random_signal
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written
from worldrt.runtime.parallel.pools.workers import DecodeWorker, DenoiseWorker
from worldrt.runtime.parallel.pools.world import PooledWorld
from worldrt.runtime.parallel.ray_cluster import open_cluster
from worldrt.runtime.samplers_vp import dpm_sde
from worldrt.runtime.schedule import methods

from ...live.worlds import ToyModel, offline

pytest.importorskip("ray")
PROMPT = "a road"


class Mortal(DenoiseWorker):
    """Tells its process."""

    def pid(self):
        return os.getpid()


class MortalDecoder(DecodeWorker):
    """Tells its process."""

    def pid(self):
        return os.getpid()


@pytest.fixture(scope="module")
def cluster():
    with open_cluster(6, memory_bytes=100 << 20) as opened:
        yield opened


def toy():
    return ToyModel(methods.swin_dpm(8, 4, 2), dpm_sde(8))


def kill(stage):
    os.kill(stage.ask("pid"), signal.SIGKILL)


def pictures(world, controls, at=lambda index: None):
    session = WorldSession(world, pace=PaceOptions(None), steering=Written(controls, -world.schedule.given))
    session.start(PROMPT)
    made = []
    for frame in session.frames():
        assert frame.index == len(made)
        at(frame.index)
        made.append(frame.picture)
    session.stop()
    return np.stack(made)


@pytest.mark.parametrize("window", [1, 3])
def test_workers_are_killed_and_every_frame_is_there_once(cluster, window):
    model = toy()
    controls = random_signal(model.schedule.given + model.schedule.slots + 30, 5)
    world = PooledWorld(model, cluster, partial(Mortal, toy), [partial(MortalDecoder, toy)], window=window, spare=True)
    try:
        world.load()
        victims = {20: world.denoise, 50: world.decode[0], 80: world.denoise}
        made = pictures(world, controls, lambda index: kill(victims[index]) if index in victims else None)
        assert world.denoise.losses == 2 and world.decode[0].losses == 1
    finally:
        world.end()
    np.testing.assert_array_equal(made, offline(model, controls, PROMPT))
