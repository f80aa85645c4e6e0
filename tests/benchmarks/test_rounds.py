"""The order of the rounds, and contenders in processes of their own."""

import signal

import pytest

from worldrt.benchmarks.rounds import interleave
from worldrt.benchmarks.worker import SlowError, Worker
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


class Slow(Recorder):
    def ask(self, command, limit_s=None, **arguments):
        if arguments["index"] == 1:
            raise SlowError(f"{self.name}: took more than {limit_s:.0f} s")
        return super().ask(command, **arguments)


def test_who_takes_longer_than_its_limit_is_left_out_and_named():
    log, slow = [], {}
    contenders = {"a": Recorder("a", log), "b": Slow("b", log)}
    samples = interleave(contenders, rounds=3, limits_s={"b": 7.0}, slow=slow)
    assert slow == {"b": "b: took more than 7 s"} and samples == {"a": {"whole": [1, 2, 3], "text": [0.5] * 3}}
    with pytest.raises(SlowError):
        interleave(contenders, rounds=1, limits_s={"b": 7.0})


def test_a_worker_past_its_limit_is_ended():
    with Worker("numpy", "kernels", {"native": False}, threads=1) as worker:
        with pytest.raises(SlowError, match="numpy: took more than 0 s"):
            worker.ask("round", limit_s=0.0, index=0)
        assert worker._process.returncode == -signal.SIGKILL
