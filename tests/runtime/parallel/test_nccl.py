"""NCCL, and steps with collectives as CUDA graphs: recorded on several ranks."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.device import HostDevice
from worldrt.engine.errors import BackendError, RankError
from worldrt.runtime.parallel.communicators import nccl, torch_nccl
from worldrt.runtime.parallel.graphs import AgreedGraphs
from worldrt.runtime.parallel.host import Host

from ...fakes.cuda import FakeCuda
from ...fakes.nccl import Library, World


class Rank:
    """A rank with a GPU of its own."""

    def __init__(self, control, world):
        self.control, self.cuda = control, FakeCuda(devices=8)
        self.device = CudaDevice(control.rank, self.cuda)
        self.library = Library(world, self.cuda)
        self.comm = nccl.open(control, self.device, self.library)

    def buffer(self, values):
        array = np.asarray(values, np.float32)
        made = self.device.empty(array.shape, "float32")
        self.device.upload(made, array)
        return made

    def values(self, buffer):
        return self.device.download(buffer).tolist()


@pytest.fixture
def gpus(all_well):
    def run(size, work):
        world = World()
        return all_well(size, lambda control: work(Rank(control, world)))

    return run


def test_collectives_of_nccl_move_bytes_on_the_stream_of_the_device(gpus):
    def work(rank):
        me, size = rank.control.rank, rank.control.size
        everyone, own = rank.buffer(np.zeros((size, 2))), rank.buffer([me, me + 0.5])
        rank.comm.all_gather(everyone, own)()
        sent = [[rank.buffer([10 * me + j]), rank.buffer([me] * 3)] for j in range(size)]
        got = [[rank.buffer([0]), rank.buffer([0] * 3)] for _ in range(size)]
        rank.comm.all_to_all(got, sent)()
        pair = rank.comm.group([me - me % 2, me - me % 2 + 1])
        both = rank.buffer(np.zeros((2, 2)))
        pair.all_gather(both, own)()
        rank.comm.broadcast(own, 1)()
        rank.comm.barrier()
        log = rank.library.log
        return rank.values(everyone), [rank.values(x) for x, _ in got], rank.values(both), rank.values(own), log

    for me, (everyone, got, both, own, log) in enumerate(gpus(4, work)):
        assert everyone == [[r, r + 0.5] for r in range(4)]
        assert got == [[10 * r + me] for r in range(4)]
        assert both == everyone[me - me % 2 :][:2]
        assert own == [1.0, 1.5]
        first = me - me % 2
        assert log == [
            ("allgather", "all", 8, 32),
            ("allgather", f"all/[{first}, {first + 1}]", 8, 16),
            ("broadcast", "all", 8),
            ("broadcast", "all", 1),
        ]


class Step:
    """Each rank doubles a number and gathers those of all, as a step of a sampler would."""

    def __init__(self, rank, refusal=None):
        self.rank, self.bodies = rank, 0
        self.own, self.every = rank.buffer([rank.control.rank + 1]), rank.buffer([[0]] * rank.control.size)
        self.gather = rank.comm.all_gather(self.every, self.own)
        self.graphs = AgreedGraphs(rank.device, rank.control, mode="auto", refusal=lambda: refusal)

    def body(self):
        self.bodies += 1
        view = self.rank.cuda.view(self.own.pointer, 4).view(np.float32)
        self.rank.cuda.enqueue(self.rank.device.stream, lambda: np.multiply(view, 2, out=view))
        self.gather()

    def run(self, times, key=("step", None)):
        for _ in range(times):
            self.graphs.run(key, self.body)
        return [value for (value,) in self.rank.values(self.every)]


@pytest.mark.parametrize("size", [2, 3])
def test_a_step_is_one_graph_on_every_rank(gpus, size):
    def work(rank):
        step = Step(rank)
        found = [step.run(1), step.run(1), step.run(5)]
        calls = rank.cuda.calls
        return found, step.bodies, calls["cudaStreamBeginCapture"], calls["cudaGraphLaunch"], rank.cuda.violations

    start = np.arange(1, size + 1)
    for found, bodies, captures, launches, violations in gpus(size, work):
        assert found == [(start * 2**n).tolist() for n in (1, 2, 7)]
        assert (bodies, captures, launches, violations) == (2, 1, 6, [])


def test_what_one_rank_cannot_capture_none_does(gpus):
    def work(rank):
        step = Step(rank, "its weights are streamed" if rank.control.rank == 1 else None)
        return step.run(4), step.bodies, rank.cuda.calls["cudaStreamBeginCapture"], step.graphs.off

    for values, bodies, captures, off in gpus(3, work):
        assert (values, bodies, captures) == ([16, 32, 48], 4, 0)
        assert off == "rank 1: its weights are streamed"


def test_a_capture_that_fails_on_one_rank_is_dropped_by_all(gpus):
    def work(rank):
        step = Step(rank)
        step.run(1)
        if rank.control.rank == 0:
            rank.cuda.fail["cudaGraphInstantiate"] = 999
        return step.run(3), rank.cuda.calls["cudaGraphLaunch"], step.graphs.off

    for values, launches, off in gpus(2, work):
        assert (values, launches) == ([16, 32], 0)
        assert off.startswith("rank 0: the capture failed")


def test_ranks_at_different_steps_are_found_out(ranks):
    world = World()

    def work(control):
        step = Step(Rank(control, world))
        key = ("guided" if control.rank == 0 else "alone", control.rank)
        return step.run(2, (key, None))

    for error in ranks(2, work):
        assert isinstance(error, RankError)
        assert "rank 1: it is at step" in str(error) and "'alone'" in str(error)


def test_collectives_under_way_are_aborted_when_a_rank_is_lost(ranks):
    world, libraries = World(), []

    def work(control):
        rank = Rank(control, world)
        libraries.append(rank.library)
        control.collect(None)
        if control.rank == 1:
            raise RankError("rank 1: lost")
        with control.changed:
            control.changed.wait_for(lambda: control.failure is not None, 60)
        rank.comm.barrier()

    error = ranks(2, work)[0]
    assert isinstance(error, RankError) and "lost" in str(error)
    assert all(library.aborted for library in libraries)


def test_nccl_wants_gpus_and_says_what_to_install(monkeypatch):
    for module in (nccl, torch_nccl):
        with pytest.raises(BackendError, match="the device is cpu"):
            module.open(Host([]), HostDevice())
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert "pip install nccl4py" in module.unavailable()
