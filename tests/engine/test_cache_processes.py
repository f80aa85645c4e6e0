"""Several processes and one cache: one builds, the others wait; one that dies lets go."""

import os
import signal
import subprocess
import sys
import time

import pytest

from worldrt.engine.bundle import Graph
from worldrt.engine.cache import PlanCache
from worldrt.engine.locks import file_lock
from worldrt.engine.obtain import obtain_plan
from worldrt.engine.plans import BuildJob, BuildReport, Range, Target
from worldrt.engine.tensors import TensorSpec

PROCESS = """
import os, sys, time
from pathlib import Path
from worldrt.engine.bundle import Graph
from worldrt.engine.cache import PlanCache
from worldrt.engine.files import staged_file
from worldrt.engine.obtain import obtain_plan
from worldrt.engine.plans import BuildJob, BuildReport, Range, Target
from worldrt.engine.tensors import TensorSpec

root, kind = Path(sys.argv[1]), sys.argv[2]
graph = Graph("toy/toy.onnx", "", (TensorSpec("x", "float32", ("batch",)),), (), "inputs", ())
job = BuildJob("tensorrt_rtx", graph, root / "toy.onnx", root, "float16", {"batch": Range(1, 1, 1)}, Target(("8.9",)))

def build(job, output, *, progress):
    with (root / "builds").open("a") as log:
        log.write(f"{os.getpid()}\\n")
    with staged_file(output, overwrite=True) as part:  # as the real builder does
        part.write_bytes(b"half")
        print("building", flush=True)
        time.sleep(0.5 if kind == "sound" else 60)
        part.write_bytes(b"plan" * 1000)
    return BuildReport(0.5, 4000, 1)

plan = obtain_plan(job, PlanCache(root / "plans"), library_version="1", build=build)
print("hit" if plan.hit else "built", flush=True)
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "toy.onnx").write_bytes(b"\x08\x0a")
    return tmp_path


def start(root, kind="sound"):
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(root), kind], stdout=subprocess.PIPE, text=True)


def test_of_processes_that_want_one_plan_one_builds_it(root):
    outputs = [process.communicate(timeout=60)[0].split() for process in [start(root) for _ in range(3)]]
    assert sorted(words[-1] for words in outputs) == ["built", "hit", "hit"]
    assert len((root / "builds").read_text().splitlines()) == 1
    assert sorted(path.suffix for path in (root / "plans").iterdir()) == [".json", ".plan"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_builder_that_is_ended_lets_the_next_one_build(root, how):
    first = start(root, "slow")
    assert first.stdout.readline() == "building\n"
    second = start(root)
    time.sleep(0.5)
    assert len((root / "builds").read_text().splitlines()) == 1, "the second one waits"
    first.send_signal(how)
    assert second.communicate(timeout=60)[0].split() == ["building", "built"]
    first.communicate()
    assert sorted(path.suffix for path in (root / "plans").iterdir()) == [".json", ".plan"], "nothing half-written"
    graph = Graph("toy/toy.onnx", "", (TensorSpec("x", "float32", ("batch",)),), (), "inputs", ())
    target = Target(("8.9",))
    job = BuildJob("tensorrt_rtx", graph, root / "toy.onnx", root, "float16", {"batch": Range(1, 1, 1)}, target)
    plan = obtain_plan(job, PlanCache(root / "plans"), library_version="1", build=never)
    assert plan.hit and plan.path.read_bytes() == b"plan" * 1000


def test_who_waits_is_told(root):
    first = start(root)
    assert first.stdout.readline() == "building\n"
    told = []
    graph = Graph("toy/toy.onnx", "", (TensorSpec("x", "float32", ("batch",)),), (), "inputs", ())
    target = Target(("8.9",))
    job = BuildJob("tensorrt_rtx", graph, root / "toy.onnx", root, "float16", {"batch": Range(1, 1, 1)}, target)
    plan = obtain_plan(
        job, PlanCache(root / "plans"), library_version="1", build=never, progress=lambda *said: told.append(said)
    )
    first.communicate()
    assert plan.hit and told == [("waiting for another process that builds it", 0.0)]


def never(job, output, *, progress) -> BuildReport:
    raise AssertionError("it is there")


def test_what_a_killed_builder_left_is_swept_away(root):
    process = start(root, "slow")
    assert process.stdout.readline() == "building\n"
    cache = PlanCache(root / "plans")
    cache.sweep()
    assert len(list(cache.folder.iterdir())) == 4, "a lock, and a record and a plan (twice) in the making"
    process.kill()
    process.communicate()
    cache.sweep()
    assert list(cache.folder.iterdir()) == []


def test_a_lock_is_held_by_one_at_a_time_and_leaves_no_file(tmp_path):
    path = tmp_path / "a.lock"
    with file_lock(path) as first, file_lock(path, wait=False) as second:
        assert (first, second) == (True, False)
    with file_lock(path, wait=False) as again:
        assert again
    assert not os.path.exists(path)
