"""Readers of one producer: fast, slow, dead and late ones, in threads and in event loops."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldrt.runtime.live.fanout import EndOfStream, Fanout


class Item:
    def __init__(self, number: int, key: bool) -> None:
        self.number, self.key = number, key


def keyed(**options):
    return Fanout(is_key=lambda item: item.key, **options)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), st.lists(st.sampled_from(["key", "other", "take", "take"]), max_size=80))
def test_a_reader_gets_runs_that_begin_with_a_key_and_every_loss_is_counted(capacity, events):
    wanted, given_items, taken = [], [], []
    fanout = keyed(want_key=lambda: wanted.append(1))
    reader = fanout.reader(capacity)
    assert len(wanted) == 1  # who joins asks for a key
    for event in events:
        if event != "take":
            given_items.append(Item(len(given_items), event == "key"))
            fanout.put(given_items[-1])
        elif reader.waiting:
            taken.append(reader.get(0))
        assert reader.waiting <= capacity
    while reader.waiting:
        taken.append(reader.get(0))
    numbers = [item.number for item in taken]
    assert numbers == sorted(set(numbers))
    for before, item in pairwise([None, *taken]):
        assert item.key or (before is not None and item.number == before.number + 1)
    first_key = next((item.number for item in given_items if item.key), len(given_items))
    assert reader.taken == len(taken) and reader.taken + reader.dropped == len(given_items) - first_key


@given(st.integers(1, 5), st.integers(0, 30))
def test_where_every_item_is_a_key_the_newest_are_kept(capacity, count):
    fanout = Fanout()
    reader = fanout.reader(capacity)
    for number in range(count):
        fanout.put(number)
    fanout.close()
    assert list(reader) == list(range(count))[-capacity:]
    assert reader.dropped == max(0, count - capacity)


def test_a_starved_reader_asks_for_a_key_once():
    wanted = []
    fanout = keyed(want_key=lambda: wanted.append(1))
    fanout.reader(3)
    wanted.clear()
    for number in range(20):
        fanout.put(Item(number, number == 0))
    assert wanted == [1]


def test_what_a_dead_reader_leaves_is_bounded_and_the_others_lose_nothing():
    fanout = Fanout()
    dead, alive = fanout.reader(4), fanout.reader(4)
    items = weakref.WeakSet()
    for number in range(10_000):
        item = Item(number, True)
        items.add(item)
        fanout.put(item)
        assert alive.get(0).number == number
    del item
    gc.collect()
    assert len(items) == dead.waiting == 4 and dead.dropped == 9_996 and alive.dropped == 0


def test_readers_in_threads_see_order_and_a_slow_one_drops():
    fanout = keyed()
    seen: dict[str, list[Item]] = {"fast": [], "slow": []}

    def read(reader):
        for item in reader:
            seen[reader.name].append(item)
            if reader.name == "slow":
                time.sleep(0.002)

    readers = [fanout.reader(1000, "fast"), fanout.reader(2, "slow")]
    threads = [threading.Thread(target=read, args=[reader]) for reader in readers]
    for thread in threads:
        thread.start()
    for number in range(600):
        fanout.put(Item(number, number % 10 == 0))
    fanout.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert [item.number for item in seen["fast"]] == list(range(600))
    assert readers[1].dropped and readers[1].taken + readers[1].dropped == 600


def test_a_reader_that_joins_late_begins_with_the_next_key():
    fanout = keyed()
    for number in range(5):
        fanout.put(Item(number, number == 0))
    late = fanout.reader()
    for number in range(5, 12):
        fanout.put(Item(number, number == 8))
    fanout.close()
    assert [item.number for item in late] == [8, 9, 10, 11] and late.dropped == 0
    with pytest.raises(EndOfStream):
        fanout.reader().get(0)


def test_an_event_loop_is_woken_by_another_thread():
    fanout = Fanout()

    async def read():
        loop = asyncio.get_running_loop()
        with fanout.reader(100) as reader:
            producer = loop.run_in_executor(None, produce)
            numbers = [number async for number in reader]
            await producer
        return numbers

    def produce():
        for number in range(50):
            fanout.put(number)
            time.sleep(0.0005)
        fanout.close()

    assert asyncio.run(read()) == list(range(50))


def test_a_task_that_is_cancelled_while_it_waits_hurts_nobody():
    fanout = Fanout()

    async def read():
        with fanout.reader() as reader:
            task = asyncio.create_task(reader.next())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            fanout.put(1)
            assert await reader.next() == 1
            await asyncio.sleep(0)
        assert not fanout.readers

    asyncio.run(read())


def test_a_loop_that_was_closed_does_not_stop_the_producer():
    fanout = Fanout()
    reader = fanout.reader(2)
    loop = asyncio.new_event_loop()
    task = loop.create_task(reader.next())
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    for number in range(5):
        fanout.put(number)
    assert reader.waiting == 2


def test_a_pause_drops_what_came_and_goes_on_with_a_key():
    wanted = []
    fanout = keyed(want_key=lambda: wanted.append(1))
    reader = fanout.reader(100)
    for number in range(5):
        fanout.put(Item(number, number == 0))
    wanted.clear()
    assert reader.pause(0.01) and reader.dropped == 5 and wanted == [1]
    for number in range(5, 9):
        fanout.put(Item(number, number == 7))
    assert reader.get(0).number == 7 and reader.dropped == 7
    closer = threading.Timer(0.05, fanout.close)
    closer.start()
    assert not reader.pause(20)
    closer.join()


def test_closing_a_reader_frees_who_waits_for_it():
    fanout = Fanout()
    reader = fanout.reader()
    closer = threading.Timer(0.05, reader.close)
    closer.start()
    with pytest.raises(EndOfStream):
        reader.get(10)
    closer.join()
    fanout.put(1)
    assert not reader.waiting and not fanout.readers
    with pytest.raises(TimeoutError):
        fanout.reader().get(0.01)
