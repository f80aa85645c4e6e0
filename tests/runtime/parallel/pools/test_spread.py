"""A batch over workers: every item once, whatever is lost on the way."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from worldrt.engine.errors import BackendError, InputError
from worldrt.engine.files import staged_file, sweep
from worldrt.runtime.batch_file import Item
from worldrt.runtime.jobs import Job
from worldrt.runtime.parallel.pools.batch import MOST_LOSSES, Spread
from worldrt.runtime.request import Request

from .cluster import FakeCluster


class Writer:
    """Writes prompts; leaves a result where it is told to."""

    def make(self, jobs, again):
        made = []
        for job in jobs:
            if job.request.prompt == "bad":
                made.append(InputError("a bad prompt"))
                continue
            place = Path(job.place)
            if place.exists() and not again:
                raise AssertionError("made twice")
            place.write_text(job.request.prompt)
            made.append({"path": job.place})
        return made


def groups(folder, prompts, size=1):
    items = [Item(i, f"{i}.mp4", Job(Request(p), str(folder / f"{i}.mp4"))) for i, p in enumerate(prompts)]
    return [items[i : i + size] for i in range(0, len(items), size)]


def all_of(spread, made):
    found = {}
    for group, results in spread(made):
        for item, result in zip(group, results, strict=True):
            assert item.index not in found
            found[item.index] = result
    return found


@pytest.mark.parametrize("size", [1, 3])
def test_every_item_is_made_once(tmp_path, size):
    found = all_of(Spread(FakeCluster(), Writer, 3), groups(tmp_path, "abcdefgh", size))
    assert found == {i: {"path": str(tmp_path / f"{i}.mp4")} for i in range(8)}


@pytest.mark.parametrize("moment", ["make", "after make"])
def test_a_worker_that_is_lost_costs_no_item(tmp_path, moment):
    made, told = [], []

    def dies(count, method):
        made.append(method)
        return method == moment and made.count(moment) in (2, 3, 6)

    cluster = FakeCluster(dies)
    found = all_of(Spread(cluster, Writer, 2, told.append), groups(tmp_path, "abcdefgh"))
    assert all(found[i] == {"path": str(tmp_path / f"{i}.mp4")} for i in range(8))
    assert [(tmp_path / f"{i}.mp4").read_text() for i in range(8)] == list("abcdefgh")
    assert len(told) == 3 and len(cluster.workers) == 5


def test_an_item_that_costs_worker_after_worker_is_given_up(tmp_path):
    class Weak(FakeCluster):
        """Loses each worker that is given the prompt "heavy"."""

        def start(self, make):
            handle = super().start(make)
            call = handle.call

            def lost(method, jobs, again):
                if jobs[0].request.prompt == "heavy":
                    handle.held = None
                return call(method, jobs, again)

            handle.call = lost
            return handle

    cluster = Weak()
    found = all_of(Spread(cluster, Writer, 2), groups(tmp_path, ["a", "heavy", "c"]))
    assert found[0]["path"] and found[2]["path"]
    assert isinstance(found[1], BackendError) and f"{MOST_LOSSES} workers were lost" in str(found[1])


def test_what_fails_is_no_loss(tmp_path):
    cluster = FakeCluster()
    found = all_of(Spread(cluster, Writer, 2), groups(tmp_path, ["a", "bad", "c"]))
    assert isinstance(found[1], InputError) and len(cluster.workers) == 2


def test_what_a_lost_worker_had_half_written_goes(tmp_path):
    place = tmp_path / "a.mp4"
    began_s = time.time()
    leave = staged_file(place)
    part = Path(leave.__enter__())
    other, older = tmp_path / ".b-12345678.mp4", tmp_path / "a-12345678.mp4"
    for path in (other, older):
        path.write_text("of others")
    sweep(place, began_s + 3600)
    assert part.exists()
    sweep(place, began_s)
    assert not part.exists() and other.exists() and older.exists()


def test_a_batch_that_is_broken_off_ends_its_workers(tmp_path):
    cluster = FakeCluster()
    running = Spread(cluster, partial(Writer), 2)(groups(tmp_path, "abcd"))
    next(running)
    running.close()
    assert len(cluster.alive) <= 1
