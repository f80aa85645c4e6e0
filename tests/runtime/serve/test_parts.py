"""The small parts of a server, each by itself."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldrt.runtime.live.keys import control_of
from worldrt.runtime.serve.host import WAITING_CALLS, BusyError, Host
from worldrt.runtime.serve.limits import Bucket
from worldrt.runtime.serve.messages import Sequences, parse
from worldrt.runtime.serve.wheel import Wheel
from worldrt.runtime.sinks.base import VideoFormat


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@given(st.lists(st.tuples(st.sampled_from(["take", "leave"]), st.sampled_from("abc")), max_size=40))
def test_the_wheel_goes_on_in_the_order_of_asking(deeds):
    wheel, line = Wheel(), []
    for deed, name in deeds:
        if deed == "take":
            line += [name] if name not in line else []
            assert wheel.take(name) == (line[0] == name)
        else:
            line = [other for other in line if other != name]
            wheel.leave(name)
        assert wheel.driver == (line[0] if line else None) and list(wheel.waiting) == line[1:]
        assert [wheel.holds(other) for other in "abc"] == [line[:1] == [other] for other in "abc"]


def test_a_token_holds_the_wheel_as_long_as_it_is_used():
    clock = Clock()
    wheel = Wheel(lease_s=30, clock=clock)
    token = wheel.lease()
    assert wheel.lease() is None and not wheel.take("viewer")
    for _ in range(3):
        clock.now_s += 29
        assert wheel.holds(token)
    clock.now_s += 31
    assert wheel.driver == "viewer" and not wheel.holds(token)
    clock.now_s += 1e6
    assert wheel.holds("viewer"), "a connection ends, it does not expire"


def test_a_bucket_lets_a_burst_through_and_then_its_rate():
    clock = Clock()
    bucket = Bucket(per_s=2, burst=5, clock=clock)
    assert [bucket.take() for _ in range(7)] == [True] * 5 + [False] * 2
    clock.now_s += 1
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now_s -= 1000  # a clock that goes back gives nothing, and takes nothing
    assert not bucket.take()
    clock.now_s += 1e9
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]


def test_keys_together_are_one_control_and_opposite_ones_say_nothing():
    expected = {
        "": None, "W": "D", "A": "DL", "S": "B", "D": "DR", "WA": "DL", "WD": "DR", "AS": "BL", "SD": "BR",
        "WS": None, "AD": None, "WAD": "D", "WAS": "DL", "ASD": "B", "WSD": "DR", "WASD": None,
    }  # fmt: skip
    every = chain.from_iterable(combinations("WASD", count) for count in range(5))
    assert {"".join(keys): control_of("".join(keys)) for keys in every} == expected
    assert control_of("daW") == "D" and control_of("wa") == control_of("AW") == "DL"
    with pytest.raises(ValueError, match="W, A, S, D"):
        control_of("WX")


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(-0.5, 1.5))
def test_a_frame_answers_the_newest_control_that_came_before_it(gaps, asked):
    times = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    sequences = Sequences()
    for number, at_s in enumerate(times, 1):
        sequences.sent(at_s, number)
    newest = [number for number, at_s in enumerate(times, 1) if at_s <= asked]
    assert sequences.answered(asked) == (newest[-1] if newest else 0)
    assert sequences.answered(None) == 0


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text):
    with suppress(ValueError):
        assert isinstance(parse(text)["type"], str)


class Stuck:
    """A world whose step does not come back until it is let."""

    def __init__(self):
        self.let = threading.Event()
        self.video, self.controls, self.done = VideoFormat(64, 64, 16), (), False

    def start(self, prompt):
        pass

    def step(self):
        self.let.wait()
        return []

    def stop(self):
        pass


def test_a_world_that_is_stuck_is_left_behind_and_refuses_what_is_too_much():
    world = Stuck()
    host = Host(lambda: world, lambda world: lambda frame: None)
    host.begin()
    host.loaded.result(10)
    waiting = [host.call(lambda world: None) for _ in range(WAITING_CALLS)]
    with pytest.raises(BusyError, match="try again later"):
        host.reset()
    assert not host.end(0.05) and host.alive
    world.let.set()
    assert host.end(10) and host.state == "ended"
    assert all(future.cancelled() or future.done() for future in waiting)
    with pytest.raises(BusyError, match="ended"):
        host.reset()


def test_a_world_that_is_done_stands_still_instead_of_spinning():
    world = Stuck()
    world.let.set()
    world.done = True
    steps = []
    host = Host(lambda: world, lambda world: steps.append)
    host.begin()
    host.loaded.result(10)
    end_s = time.monotonic() + 10
    while host.state != "paused":
        assert time.monotonic() < end_s
    assert host.end(10) and not steps
