"""The order of the rounds, and contenders in processes of their own."""

import pytest

from worldrt.benchmarks.rounds import interleave
from worldrt.benchmarks.worker import Worker
from worldrt.engine.errors import BackendError


class Recorder:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def ask(self, command, **arguments):
        self.log.append((self.name, command, arguments["index"]))
        return {"seconds": {"whole": float(arguments["index"]), "text": 0.5}}


def test_rounds_turn_and_the_warm_up_does_not_count():
    log = []
    samples = interleave({name: Recorder(name, log) for name in "ab"}, rounds=3)
    assert [(name, index) for name, _, index in log] == [
        *(("a", 0), ("b", 0), ("b", 1), ("a", 1)),
        *(("a", 2), ("b", 2), ("b", 3), ("a", 3)),
    ]
    assert samples == {name: {"whole": [1.0, 2.0, 3.0], "text": [0.5] * 3} for name in "ab"}


def test_a_worker_answers_from_another_process_and_knows_its_own_memory():
    with Worker("numpy", "kernels", {"native": False}, threads=1) as worker:
        seconds = worker.ask("round", index=0)["seconds"]
    assert all(value > 0 for value in seconds.values()) and "update nano" in seconds
    assert 10e6 < worker.peak_bytes < 1e9


def test_a_mistake_in_a_worker_is_an_error_of_the_parent():
    with pytest.raises(BackendError, match="no 'nobody' here; there are: diffusers, .*kernels, .*worldrt"):
        Worker("nobody", "nobody", {}, threads=1)
    with pytest.raises(BackendError, match=r"its process ended \(exit code 1\): TypeError"):
        Worker("wrong", "kernels", {"nonsense": 1}, threads=1)
