"""Collectives among ranks, against what they are defined to give."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine import plugin
from worldrt.engine.device import HostDevice, host_buffer
from worldrt.engine.errors import BackendError, InputError, ShapeError
from worldrt.runtime.parallel.communicators import gloo
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.ranks import COMMUNICATORS, open_communicator


def numbers(rank, count, dtype="float32"):
    return host_buffer((100 * rank + np.arange(count)).astype(dtype))


def collectives(control):
    comm = open_communicator(control, HostDevice())
    size, rank = comm.size, comm.rank
    found = {"facts": (type(comm).__name__, comm.members)}
    for dtype in ("float32", "float16", "uint8"):
        everyone = host_buffer(np.zeros((size, 3), dtype))
        gather = comm.all_gather(everyone, numbers(rank, 3, dtype))
        gather()
        gather()
        found[f"gather {dtype}"] = everyone.numpy().copy()
    # rank j gets j + 1 numbers in two pieces from everyone
    sent = [[numbers(rank, j + 1), numbers(rank + 1000, 1)] for j in range(size)]
    got = [[host_buffer(np.zeros(rank + 1, np.float32)), host_buffer(np.zeros(1, np.float32))] for _ in range(size)]
    comm.all_to_all(got, sent)()
    found["to all"] = [[piece.numpy().tolist() for piece in pieces] for pieces in got]
    root = numbers(rank, 2)
    comm.broadcast(root, size - 1)()
    found["broadcast"] = root.numpy().tolist()
    half = comm.group([r for r in range(size) if r % 2 == rank % 2])
    few = host_buffer(np.zeros((half.size, 1), np.float32))
    half.all_gather(few, numbers(rank, 1))()
    found["half"] = few.numpy()[:, 0].tolist()
    if size % 2 == 0:
        other = host_buffer(np.zeros(2, np.float32))
        comm.exchange(other, numbers(rank, 2), rank ^ 1)()
        found["exchange"] = other.numpy().tolist()
    comm.barrier()
    found["traffic"] = comm.calls, comm.received_bytes
    comm.close()
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
def test_collectives_give_what_they_are_defined_to(all_well, size):
    for rank, found in enumerate(all_well(size, collectives)):
        assert found["facts"] == ("Gloo" if size > 1 else "Single", tuple(range(size)))
        for dtype in ("float32", "float16", "uint8"):
            expected = np.stack([numbers(r, 3, dtype).numpy() for r in range(size)])
            assert np.array_equal(found[f"gather {dtype}"], expected)
        assert found["to all"] == [
            [[100.0 * r + i for i in range(rank + 1)], [100.0 * (r + 1000)]] for r in range(size)
        ]
        assert found["broadcast"] == [100.0 * (size - 1), 100.0 * (size - 1) + 1]
        assert found["half"] == [100.0 * r for r in range(size) if r % 2 == rank % 2]
        if size % 2 == 0:
            assert found["exchange"] == [100.0 * (rank ^ 1), 100.0 * (rank ^ 1) + 1]
        gathers = 2 * (12 + 6 + 3) * (size - 1)
        to_all, broadcast = (rank + 2) * 4 * (size - 1), 8 * (rank != size - 1)
        assert found["traffic"] == (9 + (size < 3), gathers + to_all + broadcast + 8 * (size % 2 == 0))


def test_values_of_all_ranks_are_collected_in_the_order_of_ranks(all_well):
    def run(control):
        return [control.collect([control.rank, turn]) for turn in range(20)]

    assert all_well(3, run) == [[[[rank, turn] for rank in range(3)] for turn in range(20)]] * 3


def test_buffers_of_the_wrong_size_are_refused():
    comm = open_communicator(Host([]), HostDevice())
    with pytest.raises(ShapeError, match="all_gather of 1 x 12 bytes into 8"):
        comm.all_gather(numbers(0, 2), numbers(0, 3))
    with pytest.raises(ShapeError, match="pieces for each"):
        comm.all_to_all([[numbers(0, 1)], []], [[numbers(0, 1)], []])


def test_communicators_are_found_by_their_file_name():
    assert plugin.names(COMMUNICATORS) == ["gloo", "nccl", "single", "torch_nccl"]
    with pytest.raises(InputError, match="there are: gloo, nccl"):
        plugin.load(COMMUNICATORS, "mpi")


def test_what_is_missing_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install torch" in gloo.unavailable()
    host = Host([])
    host.size = 2
    with pytest.raises(BackendError, match="pip install torch"):
        open_communicator(host, HostDevice())
