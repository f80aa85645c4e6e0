"""Worlds in pools whose workers tell their processes, so that these can be killed."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from functools import partial

import numpy as np

from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.pools.parts import DecodePartWorker
from worldrt.runtime.parallel.pools.workers import DecodeWorker, DenoiseWorker
from worldrt.runtime.parallel.pools.world import PooledWorld
from worldrt.runtime.parallel.worker import work
from worldrt.runtime.samplers_vp import dpm_sde
from worldrt.runtime.schedule import methods

from ...live.worlds import ToyModel

PROMPT = "a road"


class Mortal(DenoiseWorker):
    """Tells its process."""

    def pid(self):
        return os.getpid()


class MortalFirst(Mortal):
    """The first of a group tells all of its processes."""

    def __init__(self, make, pids) -> None:
        super().__init__(make)
        self._pids = pids

    def pids(self):
        return self._pids


class MortalDecoder(DecodeWorker):
    """Tells its process."""

    def pid(self):
        return os.getpid()


class MortalPart(DecodePartWorker):
    """Tells its process."""

    def pid(self):
        return os.getpid()


def toy():
    """Groups of two latents, eight steps: a world of a few lines."""
    return ToyModel(methods.swin_dpm(8, 4, 2), dpm_sde(8))


class NoKeys(World):
    """A world of a model of clips, which knows no controls."""

    @property
    def controls(self):
        return ("N",)


def nano(folder):
    """The nano model of clips as a stream of the smallest pictures: real graphs, a causal decoder."""
    models = Models.open([folder], options={"threads": 1})
    return NoKeys(models, task="video2world", size=(32, 32), schedule=methods.swin_dpm(4, 4, 1), guidance=0.0)


def matrix(folder, ranks=None):
    """The nano Matrix: a queue that is steered. With the smallest pictures."""
    return World(Models.open([folder], options={"threads": 1}, ranks=ranks), size=(16, 16), base_steps=2)


def lead(folder, ranks):
    """The first worker of a group that shares the transformer of the nano Matrix."""
    return MortalFirst(partial(matrix, folder, ranks), ranks.control.collect(os.getpid()))


def follow(folder, ranks):
    """What the others of the group do."""
    ranks.control.collect(os.getpid())
    work(Models.open([folder], options={"threads": 1}, ranks=ranks), ranks.control)


@contextmanager
def pooled(cluster, make, parts=1, first=None, **options):
    """A world in pools, loaded; `first` makes the first worker of a group."""
    decode = [partial(MortalPart, make, i, parts) for i in range(parts)]
    denoise = first or partial(Mortal, make)
    pools = PooledWorld(make(), cluster, denoise, decode if parts > 1 else [partial(MortalDecoder, make)], **options)
    try:
        pools.load()
        yield pools
    finally:
        pools.end()


def kill(stage):
    """Kill the worker of a stage, whatever it does."""
    os.kill(stage.ask("pid"), signal.SIGKILL)


def session_of(world, controls):
    session = WorldSession(world, pace=PaceOptions(None), steering=Written(controls, -world.schedule.given))
    session.start(PROMPT)
    return session


def pictures(world, controls, at=lambda index: None):
    """All pictures of a signal; `at` is called with the number of each."""
    session = session_of(world, controls)
    made = []
    for frame in session.frames():
        assert frame.index == len(made)
        at(frame.index)
        made.append(frame.picture)
    session.stop()
    return np.stack(made)
