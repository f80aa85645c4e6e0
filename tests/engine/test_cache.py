"""The plan cache takes a plan only if it is the one that was asked for, whole; it keeps its place in order."""

import errno
import json
import os
import threading
import time

import pytest

from worldrt.engine import cache_folder
from worldrt.engine.bundle import Graph
from worldrt.engine.cache import PlanCache
from worldrt.engine.errors import BackendError, CheckpointError, InputError, OutputError
from worldrt.engine.locks import Hold
from worldrt.engine.obtain import obtain_plan, reject_plan
from worldrt.engine.plans import BuildJob, BuildReport, Range, Target
from worldrt.engine.record import damage
from worldrt.engine.tensors import TensorSpec

LIMIT = 1_000_000


@pytest.fixture
def cache(tmp_path):
    return PlanCache(tmp_path / "plans", LIMIT)


@pytest.fixture
def make_job(tmp_path):
    """Jobs of one small graph; another `most` is another plan."""
    (tmp_path / "toy.onnx").write_bytes(b"\x08\x0a")
    graph = Graph("toy/toy.onnx", "", (TensorSpec("x", "float32", ("batch",)),), (), "inputs", ())

    def make(most=1):
        profile = {"batch": Range(1, 1, most)}
        return BuildJob("tensorrt_rtx", graph, tmp_path / "toy.onnx", tmp_path, "float16", profile, Target(("8.9",)))

    return make


class Builder:
    """Writes plans that differ with each build, `nbytes` long."""

    def __init__(self, nbytes=1000):
        self.nbytes, self.builds = nbytes, 0

    def __call__(self, job, output, *, progress=None):
        self.builds += 1
        output.write_bytes((f"{job.profile['batch'].max} {self.builds} ".encode() * self.nbytes)[: self.nbytes])
        return BuildReport(2.5, self.nbytes, 1 << 20, layers=("gemm: 1",), warnings=("slow",))


@pytest.fixture
def builder():
    return Builder()


def obtain(job, cache, builder):
    plan = obtain_plan(job, cache, library_version="1.7.1", build=builder)
    plan.hold.release()
    return plan


def test_a_plan_is_built_once_and_then_taken(cache, make_job, builder):
    first, second = (obtain(make_job(), cache, builder) for _ in range(2))
    assert (first.hit, second.hit, builder.builds) == (False, True, 1)
    assert second.path.read_bytes() == first.path.read_bytes()
    assert (second.key, second.report) == (first.key, first.report)
    assert second.report == BuildReport(2.5, 1000, 1 << 20, layers=("gemm: 1",), warnings=("slow",))
    assert not obtain(make_job(2), cache, builder).hit
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".json", ".json", ".plan", ".plan"]


def record_of(plan):
    return plan.path.with_suffix(".json")


def edited(plan, *where, value):
    data = json.loads(record_of(plan).read_text())
    *parents, name = where
    inner = data
    for parent in parents:
        inner = inner[parent]
    assert name in inner
    inner[name] = value
    record_of(plan).write_text(json.dumps(data))


def flip(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "the first byte": lambda plan: flip(plan.path, 0),
    "the last byte": lambda plan: flip(plan.path, -1),
    "cut short": lambda plan: os.truncate(plan.path, 999),
    "longer": lambda plan: os.truncate(plan.path, 1001),
    "empty": lambda plan: os.truncate(plan.path, 0),
    "no plan": lambda plan: plan.path.unlink(),
    "no record": lambda plan: record_of(plan).unlink(),
    "an empty record": lambda plan: record_of(plan).write_text(""),
    "half a record": lambda plan: os.truncate(record_of(plan), 300),
    "no text": lambda plan: record_of(plan).write_bytes(b"\xff\xfe"),
    "an unknown field": lambda plan: record_of(plan).write_text(
        record_of(plan).read_text().replace("{", '{"odd": 1,', 1)
    ),
    "another library version": lambda plan: edited(plan, "key", "library_version", value="1.7.0"),
    "another profile": lambda plan: edited(plan, "key", "profile", "batch", "max", value=7),
    "an impossible profile": lambda plan: edited(plan, "key", "profile", "batch", "max", value=0),
    "another size": lambda plan: edited(plan, "plan_bytes", value=999),
    "another hash": lambda plan: edited(plan, "plan_sha256", value="0" * 64),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_built_again_with_one_warning(cache, make_job, builder, caplog, how):
    plan = obtain(make_job(), cache, builder)
    DAMAGE[how](plan)
    again = obtain(make_job(), cache, builder)
    assert (again.hit, builder.builds) == (False, 2)
    assert again.path.read_bytes().startswith(b"1 2 ")
    assert len(caplog.records) == 1 and "it is built again" in caplog.text
    assert obtain(make_job(), cache, builder).hit


def test_plans_that_were_swapped_are_not_taken(cache, make_job, builder):
    one, two = (obtain(make_job(most), cache, builder) for most in (1, 2))
    for path in (one.path, record_of(one)):
        os.rename(path, path.with_name("aside"))
        os.rename(two.path.with_suffix(path.suffix), path)
        os.rename(path.with_name("aside"), two.path.with_suffix(path.suffix))
    for most in (1, 2):
        plan = obtain(make_job(most), cache, builder)
        assert not plan.hit
        assert plan.path.read_bytes().startswith(f"{most} ".encode())


def test_a_plan_that_the_library_refuses_is_built_again(cache, make_job, builder, caplog):
    plan = obtain_plan(make_job(), cache, library_version="1.7.1", build=builder)
    reject_plan(plan, cache, "cannot be loaded")
    assert "cannot be loaded" in caplog.text
    assert not obtain(make_job(), cache, builder).hit


@pytest.mark.parametrize("error", [BackendError("no kernel"), KeyboardInterrupt(), RuntimeError("bug")])
def test_a_failed_build_leaves_nothing(cache, make_job, error):
    def build(job, output, *, progress):
        output.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        obtain_plan(make_job(), cache, library_version="1", build=build)
    assert list(cache.folder.iterdir()) == []


@pytest.mark.parametrize("when", ["building", "recording"])
def test_on_a_full_disk_nothing_is_kept(cache, make_job, builder, monkeypatch, when):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "recording":
        monkeypatch.setattr("worldrt.engine.cache.write_record", full)
    with pytest.raises(OutputError, match="disk is full"):
        obtain_plan(make_job(), cache, library_version="1", build=full if when == "building" else builder)
    assert list(cache.folder.iterdir()) == []


def test_a_graph_that_changes_during_the_build_is_not_kept_under_its_old_key(cache, make_job, builder):
    def build(job, output, *, progress):
        job.path.write_bytes(b"\x08\x0b")
        return builder(job, output)

    with pytest.raises(CheckpointError, match="changed during the build"):
        obtain_plan(make_job(), cache, library_version="1", build=build)
    assert list(cache.folder.iterdir()) == []


def used(cache, plan, minutes_ago):
    then = time.time() - 60 * minutes_ago
    os.utime(record_of(plan), (then, then))


def test_plans_unused_for_longest_go_first(tmp_path, make_job):
    builder = Builder(10_000)
    cache = PlanCache(tmp_path / "plans", 35_000)  # three plans with their records
    plans = [obtain(make_job(most), cache, builder) for most in (1, 2, 3)]
    for plan, minutes in zip(plans, (3, 2, 1), strict=True):
        used(cache, plan, minutes)
    assert obtain(make_job(1), cache, builder).hit  # the oldest one is used again
    obtain(make_job(4), cache, builder)
    assert [obtain(make_job(most), PlanCache(cache.folder, 10**9), builder).hit for most in (1, 3, 4, 2)] == [
        *[True] * 3,
        False,
    ]


def test_the_plan_just_made_stays_even_if_it_is_larger_than_the_limit(tmp_path, make_job):
    cache, builder = PlanCache(tmp_path / "plans", 0), Builder(10_000)
    for most in (1, 2):
        assert obtain(make_job(most), cache, builder).path.exists()
    assert len(cache.entries()) == 1


def test_a_plan_that_is_being_loaded_stays(tmp_path, make_job, builder):
    cache = PlanCache(tmp_path / "plans", 0)
    held = obtain_plan(make_job(1), cache, library_version="1.7.1", build=builder)
    again = obtain_plan(make_job(1), cache, library_version="1.7.1", build=builder)
    obtain(make_job(2), cache, builder)
    assert held.path.exists() and not cache.remove(held.key.digest)
    held.hold.release()
    assert not cache.remove(held.key.digest), "the hit holds it too"
    again.hold.release()
    assert cache.remove(held.key.digest)


def test_who_claims_a_plan_that_is_being_removed_waits_and_finds_it_gone(cache, make_job, builder, monkeypatch):
    plan = obtain(make_job(), cache, builder)
    clear, claims = cache._clear, []

    def slow(digest):
        claimant = threading.Thread(target=lambda: claims.append(_claim(plan.path)))
        claimant.start()
        claimant.join(0.2)
        assert claims == [], "the claim waits"
        clear(digest)
        threads.append(claimant)

    threads = []
    monkeypatch.setattr(cache, "_clear", slow)
    assert cache.remove(plan.key.digest)
    threads[0].join(5)
    assert claims == ["gone"]


def _claim(path):
    try:
        Hold(path)
    except FileNotFoundError:
        return "gone"
    return "held"


def test_verifying_does_not_call_what_is_removed_meanwhile_damaged(cache, make_job, builder, monkeypatch):
    for most in (1, 2):
        obtain(make_job(most), cache, builder)

    def removed_meanwhile(entry, key=None):
        entry.plan.unlink(missing_ok=True)
        entry.plan.with_suffix(".json").unlink(missing_ok=True)
        return damage(entry, key)

    monkeypatch.setattr("worldrt.engine.cache.damage", removed_meanwhile)
    assert list(cache.verify()) == []


def test_what_cannot_be_removed_is_an_error_of_one_line(cache, make_job, builder):
    plan = obtain(make_job(), cache, builder)
    plan.path.unlink()
    plan.path.mkdir()
    with pytest.raises(OutputError, match=r"\.plan: cannot be removed"):
        obtain(make_job(), cache, builder)


def test_an_old_plan_that_cannot_go_does_not_cost_the_new_one(tmp_path, make_job, builder, caplog):
    cache = PlanCache(tmp_path / "plans", 0)
    old = obtain(make_job(1), cache, builder)
    record_of(old).unlink()
    record_of(old).mkdir()
    assert obtain(make_job(2), cache, builder).path.exists()
    assert "cannot be removed" in caplog.text


def test_what_was_read_of_the_weights_is_remembered_even_if_the_build_fails(cache, make_job, monkeypatch):
    saved = []
    monkeypatch.setattr(cache.hashes, "save", lambda: saved.append(True))

    def fail(job, output, *, progress):
        raise BackendError("no kernel")

    with pytest.raises(BackendError):
        obtain_plan(make_job(), cache, library_version="1", build=fail)
    assert saved


def test_a_plan_whose_lock_is_held_stays(tmp_path, make_job, builder):
    cache = PlanCache(tmp_path / "plans", 0)
    plan = obtain(make_job(1), cache, builder)
    with cache.lock(plan.key.digest):
        obtain(make_job(2), cache, builder)
        assert plan.path.exists() and not cache.remove(plan.key.digest)
    obtain(make_job(3), cache, builder)
    assert not plan.path.exists()


def test_a_cache_that_cannot_be_written_still_serves(cache, make_job, builder, monkeypatch):
    obtain(make_job(), cache, builder)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr("worldrt.engine.locks._acquire", refuse)
    monkeypatch.setattr("worldrt.engine.files.tempfile.mkstemp", refuse)
    assert obtain(make_job(), cache, builder).hit
    with pytest.raises(OutputError, match=r"Read-only file system.*\$WORLDRT_PLAN_CACHE"):
        obtain(make_job(2), cache, builder)


def test_the_folder_is_the_owners_alone(cache, make_job, builder):
    obtain(make_job(), cache, builder)
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(OutputError, match=r"others may write.*chmod go-w"):
        PlanCache(tmp_path)


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(OutputError, match="belongs to another user"):
        PlanCache(tmp_path)


def test_a_place_that_is_no_folder_is_explained(tmp_path, make_job, builder):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"\$WORLDRT_PLAN_CACHE"):
        obtain(make_job(), PlanCache(tmp_path / "file" / "plans"), builder)


def test_the_environment_names_the_folder_and_the_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (cache_folder.VARIABLE, cache_folder.LIMIT_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert PlanCache().folder == tmp_path / ".cache" / "worldrt" / "plans"
    assert PlanCache().limit_bytes == 64_000_000_000
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert PlanCache().folder == tmp_path / ".cache" / "worldrt" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert PlanCache().folder == tmp_path / "xdg" / "worldrt" / "plans"
    monkeypatch.setenv(cache_folder.VARIABLE, str(tmp_path / "mine"))
    monkeypatch.setenv(cache_folder.LIMIT_VARIABLE, "0.5")
    assert (PlanCache().folder, PlanCache().limit_bytes) == (tmp_path / "mine", 500_000_000)
    for wrong in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv(cache_folder.LIMIT_VARIABLE, wrong)
        with pytest.raises(InputError, match=r"\$WORLDRT_PLAN_CACHE_GB"):
            PlanCache()
    monkeypatch.setenv(cache_folder.VARIABLE, "~nobody-of-that-name/plans")
    with pytest.raises(InputError, match=r"\$WORLDRT_PLAN_CACHE: no home folder for '~nobody-of-that-name/plans'"):
        PlanCache()


def test_what_was_compiled_of_a_plan_counts_and_goes_with_it(cache, make_job, builder):
    plan = obtain(make_job(), cache, builder)
    (before,) = cache.entries()
    plan.path.with_suffix(".jit").write_bytes(b"x" * 500)
    assert cache.entries()[0].nbytes == before.nbytes + 500
    assert obtain(make_job(), cache, builder).hit
    assert cache.remove(plan.key.digest)
    assert list(cache.folder.iterdir()) == []


def test_old_halves_of_what_was_learnt_are_swept_away(cache):
    cache.folder.mkdir(mode=0o700)
    names = [".content-abc.json", f".timing-{'0' * 16}-abc.bin", ".content.json", f"timing-{'0' * 16}.bin"]
    for name in names:
        (cache.folder / name).touch()
    cache.sweep()
    assert sorted(os.listdir(cache.folder)) == sorted(names), "someone may be writing them"
    for name in names:
        os.utime(cache.folder / name, (time.time() - 7200,) * 2)
    cache.sweep()
    assert sorted(os.listdir(cache.folder)) == sorted(names[2:])


def test_other_files_of_the_folder_are_left_alone(tmp_path, make_job, builder):
    cache = PlanCache(tmp_path / "plans", 0)
    cache.folder.mkdir(mode=0o700)
    for name in ("notes.txt", "abc.plan", "content.json", ".hidden"):
        (cache.folder / name).write_text("mine")
    for most in (1, 2):
        obtain(make_job(most), cache, builder)
    assert len(cache.entries()) == 1
    assert {"notes.txt", "abc.plan", "content.json", ".hidden"} <= set(os.listdir(cache.folder))
