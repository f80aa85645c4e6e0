"""Pools in a cluster that loses workers at every point: the same pictures, each once, in order, in bounded memory."""

from __future__ import annotations

from functools import partial
from itertools import islice

import numpy as np
import pytest

from worldrt.engine.errors import BackendError, InputError
from worldrt.runtime.live.clock import SimulatedClock
from worldrt.runtime.live.controls import random_signal
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written
from worldrt.runtime.parallel.pools.base import Lost
from worldrt.runtime.parallel.pools.stage import MOST_LOSSES, Stage
from worldrt.runtime.parallel.pools.worker import Worker
from worldrt.runtime.parallel.pools.workers import DecodeWorker, DenoiseWorker
from worldrt.runtime.parallel.pools.world import PooledWorld
from worldrt.runtime.samplers_vp import dpm_sde
from worldrt.runtime.schedule import methods

from ...live.worlds import ToyModel, offline
from .cluster import FakeCluster

PROMPT = "a road"
SCHEDULES = {
    "groups of 2": methods.swin_dpm(8, 4, 2),
    "one by one": methods.swin_dpm(4, 4, 1),
    "cold start": methods.opendwm(24, 4),
    "with history": methods.pyramid(4, 2, history=1),
}


def toy(schedule):
    return ToyModel(schedule, dpm_sde(schedule.steps))


def pooled(cluster, schedule, **options):
    make = partial(toy, schedule)
    return PooledWorld(make(), cluster, partial(DenoiseWorker, make), [partial(DecodeWorker, make)], **options)


def shown(world, controls, *, frames=None, prompts=None):
    clock = SimulatedClock({"denoise": 0.1, "decode": 0.05, "text": 0.1}.__getitem__)
    steering = Written(controls, -world.schedule.given)
    session = WorldSession(world, pace=PaceOptions(None), clock=clock, steering=steering, prompts=prompts)
    session.start(PROMPT)
    return [(frame.index, frame.picture) for frame in islice(session.frames(), frames)]


def same(made, expected):
    assert [index for index, _ in made] == list(range(len(expected)))
    np.testing.assert_array_equal(np.stack([picture for _, picture in made]), np.stack(expected))


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=list(SCHEDULES))
def test_a_pooled_world_has_the_pictures_of_the_world(schedule, window):
    controls = random_signal(schedule.given + schedule.slots + 9, 5)
    world = pooled(FakeCluster(), schedule, window=window)
    same(shown(world, controls), offline(toy(schedule), controls, PROMPT))


def test_wherever_a_worker_dies_the_pictures_are_the_same():
    schedule = methods.swin_dpm(4, 4, 1)
    controls = random_signal(schedule.given + schedule.slots + 5, 5)
    expected = offline(toy(schedule), controls, PROMPT)
    quiet = FakeCluster()
    shown(pooled(quiet, schedule, window=2, every=3), controls)
    for when in range(1, quiet.calls + 1):
        for moment in ("before", "after") if when % 3 == 0 else ("before",):
            cluster = FakeCluster(
                lambda count, m, w=when, a=moment: count == w and m.startswith("after") == (a == "after")
            )
            world = pooled(cluster, schedule, window=2, every=3, spare=when % 2 == 0)
            same(shown(world, controls), expected)


def test_prompts_that_change_are_the_same_after_a_loss():
    schedule = methods.swin_dpm(4, 4, 1)
    controls = random_signal(schedule.given + schedule.slots + 9, 5)

    class Rain:
        def of(self, row):
            return "rain" if row == 4 else None

    expected = [picture for _, picture in shown(toy(schedule), controls, prompts=Rain())]
    assert not np.array_equal(expected[-1], offline(toy(schedule), controls, PROMPT)[-1])
    for when in range(10, 40, 3):
        cluster = FakeCluster(lambda count, method, w=when: count == w)
        same(shown(pooled(cluster, schedule, every=4), controls, prompts=Rain()), expected)


def test_thousands_of_frames_with_random_deaths_in_bounded_memory():
    schedule = methods.swin_dpm(4, 4, 1)
    rng = np.random.default_rng(3)
    controls = random_signal(schedule.given + schedule.slots + 200, 5)
    cluster = FakeCluster(lambda count, method: method in ("row", "decode", "after row") and rng.random() < 0.02)
    world = pooled(cluster, schedule, window=3)
    expected = offline(toy(schedule), controls, PROMPT)
    assert len(expected) > 800
    same(shown(world, controls), expected)
    stages = (world.denoise, *world.decode)
    assert sum(stage.losses for stage in stages) >= 5
    for stage in stages:
        assert len(stage._calls) <= 80 and len(stage._checkpoints) <= 10


def test_losses_that_two_threads_find_at_once_are_mended_once():
    schedule = methods.swin_dpm(4, 4, 1)
    controls = random_signal(schedule.given + schedule.slots + 60, 5)
    rng = np.random.default_rng(4)
    cluster = FakeCluster(lambda count, method: method in ("row", "decode", "after decode") and rng.random() < 0.03)
    world = pooled(cluster, schedule, window=3, every=4)
    session = WorldSession(world, pace=PaceOptions(None), steering=Written(controls, -schedule.given))
    session.start(PROMPT)
    made = [(frame.index, frame.picture) for frame in session.frames()]
    session.stop()
    same(made, offline(toy(schedule), controls, PROMPT))
    assert world.denoise.losses + world.decode[0].losses > 1


def test_a_state_of_a_pooled_world_goes_on_elsewhere():
    schedule = methods.swin_dpm(8, 4, 2)
    controls = random_signal(schedule.given + schedule.slots + 12, 5)
    expected = offline(toy(schedule), controls, PROMPT)
    options = {"pace": PaceOptions(None), "steering": Written(controls, -schedule.given)}
    clock = SimulatedClock({"denoise": 0.1, "decode": 0.05, "text": 0.1}.__getitem__)
    session = WorldSession(pooled(FakeCluster(), schedule), clock=clock, **options)
    session.start(PROMPT)
    first = [frame.picture for frame in islice(session.frames(), 10)]
    state = session.snapshot()
    other = WorldSession(pooled(FakeCluster(lambda count, method: count == 12), schedule), clock=clock, **options)
    other.restore(state)
    np.testing.assert_array_equal(first + [frame.picture for frame in other.frames()], expected)


class Counter(Worker):
    """Adds numbers up; it cannot add what is no number."""

    total = 0

    def load(self):
        """Nothing to load."""

    def add(self, number):
        self.total += number
        return self.total

    def checkpoint(self):
        return self.total

    def _restore(self, state):
        self.total = state or 0


def test_a_call_out_of_turn_is_refused():
    counter = Counter()
    counter.begin(0, None)
    assert counter.run(0, "add", 2) == 2
    for number in (0, 2):
        with pytest.raises(Lost):
            counter.run(number, "add", 5)
    assert counter.run(1, "add", 3) == 5


def test_what_a_call_raises_is_raised_and_is_no_loss():
    stage = Stage(FakeCluster(), Counter, "add")
    stage.begin()
    with pytest.raises(TypeError):
        stage.submit("add", "two").get()
    assert stage.losses == 0
    stage.begin()
    assert stage.submit("add", 2).get() == 2


def test_workers_that_die_again_and_again_are_an_error():
    stage = Stage(FakeCluster(lambda count, method: method == "add"), Counter, "add")
    stage.begin()
    with pytest.raises(BackendError, match="lost 5 times with no result between"):
        stage.submit("add", 2).get()
    assert stage.losses == MOST_LOSSES + 1


class Refuses(Counter):
    """Goes on from no state."""

    def _restore(self, state):
        if state:
            raise InputError("a state of another model")
        super()._restore(state)


def test_a_worker_that_cannot_go_on_says_why():
    dies = {7}
    stage = Stage(FakeCluster(lambda count, method: count in dies), Refuses, "add", every=2)
    stage.begin()
    assert [stage.submit("add", 1).get() for _ in range(2)] == [1, 2]
    stage.submit("add", 1)
    with pytest.raises(InputError, match="another model"):
        stage.submit("add", 1).get()
