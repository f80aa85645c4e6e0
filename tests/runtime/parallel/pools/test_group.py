"""Groups of workers that share each call: whichever is lost, the group goes, and another one has the same pictures."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np
import pytest

from worldrt.engine.errors import BackendError, InputError
from worldrt.runtime.live.controls import random_signal
from worldrt.runtime.parallel.control import LOOPBACK
from worldrt.runtime.parallel.pools.group import Groups
from worldrt.runtime.parallel.pools.workers import DecodeWorker, DenoiseWorker
from worldrt.runtime.parallel.pools.world import PooledWorld
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.samplers_vp import dpm_sde
from worldrt.runtime.schedule import methods

from ...live.worlds import SHAPE, ToyModel, x0_of
from .cluster import FakeCluster, FakeHandle, FakeRef
from .mortal import pictures

LIMIT_S = 60.0  # a loaded machine is no stall


class Processes(FakeCluster):
    """What the others of a group do goes on beside all else; who dies closes connections, as a process does."""

    def start(self, make):
        self.workers.append(Process(self, make))
        return self.workers[-1]


class Process(FakeHandle):
    def call(self, method, *args):
        if method != "work":
            return super().call(method, *args)
        (where,) = args
        threading.Thread(target=super().call, args=(method, where), daemon=True).start()
        return FakeRef(None)

    def end(self):
        """Killed."""
        held, self.held = self.held, None
        control = getattr(held, "control", None)
        for wire in [] if control is None else getattr(control, "_guests", None) or [control._host]:
            wire.close()


class Shared(ToyModel):
    """A toy whose denoiser adds a number that another rank finds."""

    def __init__(self, ranks=None):
        schedule = methods.swin_dpm(4, 4, 1)
        super().__init__(schedule, dpm_sde(schedule.steps))
        self.ranks = ranks

    def queue(self, told, feed, seed):
        x0 = x0_of(told)

        def model(x, level, given):
            return x0(x, level, given) + self.found(x)

        return Queue(self.plan, self.table, model, SHAPE, feed=feed, seed=seed)

    def found(self, x):
        if self.ranks is None:
            return np.float32(number_of(x))
        self.ranks.order({"do": "number"}, {"x": x})
        return np.float32(self.ranks.control.collect(None)[1])


def number_of(x):
    return float(np.float32(np.tanh(x.mean()) / 10))


def lead(ranks):
    return DenoiseWorker(lambda: Shared(ranks))


def follow(ranks):
    while (order := ranks.control.next_order()) is not None:
        ranks.control.collect(number_of(order[1]["x"]))


def cannot(ranks):
    raise InputError("no such bundle on this machine")


def alone():
    return DecodeWorker(Shared)


def address():
    return LOOPBACK


def pooled(cluster, others=follow, **options):
    groups = Groups(cluster, 2, others, address, LIMIT_S)
    return PooledWorld(Shared(), cluster, lead, [alone], groups=groups, **options)


@pytest.fixture(scope="module")
def controls():
    schedule = Shared().schedule
    return random_signal(schedule.given + schedule.slots + 8, 5)


@pytest.fixture(scope="module")
def expected(controls):
    return pictures(Shared(), controls)


def end(world, cluster):
    world.end()
    for worker in cluster.workers:
        with suppress(Exception):
            worker.end()


@pytest.mark.parametrize("spare", [False, True])
def test_whichever_worker_of_a_group_is_lost_another_group_goes_on(controls, expected, spare):
    cluster = Processes()
    world = pooled(cluster, window=2, every=3, spare=spare)

    def kill(index):
        """The first worker of the group that runs, and another time the other one."""
        if index in (5, 14, 23):
            group = world.denoise._handle
            (group._first if index == 14 else group._others[0]).end()

    made = pictures(world, controls, kill)
    assert world.denoise.losses == 3 and world.decode[0].losses == 0
    np.testing.assert_array_equal(made, expected)
    end(world, cluster)
    assert not cluster.alive


def test_what_another_worker_cannot_do_is_said_and_not_tried_again():
    cluster = Processes()
    world = pooled(cluster, cannot)
    with pytest.raises(BackendError, match="rank 1 cannot do its part: no such bundle on this machine"):
        pictures(world, ["D"] * 20)
    assert world.denoise.losses == 0
    end(world, cluster)
