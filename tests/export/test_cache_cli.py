"""`trt-export cache`: the table tells the truth, and only what was named goes."""

import json
import os
import time

import pytest

from worldrt.engine.bundle import Graph
from worldrt.engine.cache import PlanCache
from worldrt.engine.obtain import obtain_plan
from worldrt.engine.plans import BuildJob, BuildReport, Range, Target
from worldrt.engine.tensors import TensorSpec
from worldrt.export import cli

DAY_S = 86400


@pytest.fixture
def plans(tmp_path, monkeypatch):
    """Three plans, used three days, two days and a minute ago, in the folder that the environment names."""
    monkeypatch.setenv("WORLDRT_PLAN_CACHE", str(tmp_path / "plans"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "toy.onnx").write_bytes(b"\x08\x0a")
    graph = Graph("video2world/block.onnx", "", (TensorSpec("x", "float32", ("batch",)),), (), "inputs", ())
    made = []
    for number, target in enumerate([Target(("9.0",), "NVIDIA H200", 132), Target(("8.9", "12.0")), Target(("8.0",))]):
        profile = {"batch": Range(1, 1, 1)}
        job = BuildJob("tensorrt_rtx", graph, tmp_path / "toy.onnx", tmp_path, "bfloat16", profile, target)
        plan = obtain_plan(job, PlanCache(), library_version="1.7.1", build=write)
        plan.hold.release()
        then = time.time() - (3 * DAY_S, 2 * DAY_S, 60)[number]
        os.utime(plan.path.with_suffix(".json"), (then, then))
        made.append(plan)
    return made


def write(job, output, *, progress):
    output.write_bytes(b"plan" * 500_000)
    return BuildReport(1.0, 2_000_000, 1)


def run(capsys, *args):
    code = cli.main(["cache", *map(str, args)])
    out, err = capsys.readouterr()
    return code, out, err


def test_ls_shows_what_is_there_the_last_used_first(plans, capsys):
    code, out, _ = run(capsys, "ls")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[1:4]] == [plan.key.digest[:12] for plan in reversed(plans)]
    assert lines[3].split() == [
        *(plans[0].key.digest[:12], "video2world/block", "bf16", "tensorrt_rtx", "1.7.1", "NVIDIA", "H200"),
        *("2.0", "MB", "3", "d", "ago"),
    ]
    assert "SM89 SM120" in lines[2]
    assert "3 plans, 6.0 MB of at most 64.0 GB" in lines[-1]


def test_ls_as_json_holds_the_whole_record(plans, capsys):
    rows = json.loads(run(capsys, "ls", "--json")[1])
    assert [row["digest"] for row in rows] == [plan.key.digest for plan in reversed(plans)]
    assert rows[2]["record"]["key"]["target"] == {
        "compute_capabilities": ["9.0"],
        "gpu_name": "NVIDIA H200",
        "sm_count": 132,
    }
    assert rows[2]["path"] == str(plans[0].path)


def left(plans):
    return [number for number, plan in enumerate(plans) if plan.path.exists()]


def test_rm_takes_the_beginning_of_a_digest(plans, capsys):
    code, out, _ = run(capsys, "rm", plans[1].key.digest[:8], plans[1].key.digest)
    assert (code, left(plans)) == (0, [0, 2])
    assert "1 plans removed" in out


def test_rm_of_old_ones_and_of_all(plans, capsys):
    assert run(capsys, "rm", "--older-than", "2.5")[0] == 0
    assert left(plans) == [1, 2]
    assert json.loads(run(capsys, "rm", "--all", "--json")[1])["kept"] == []
    assert left(plans) == []
    assert "0 plans" in run(capsys, "ls")[1]


@pytest.mark.parametrize(
    "args",
    [
        ["../../etc/passwd"],
        ["*"],
        [""],
        ["."],
        ["abc"],
        ["ABCDEF"],
        ["/"],
        ["0" * 65],
        ["0" * 64],
        ["abcdef\n"],
        [],
        ["--all", "abcdef"],
        ["--older_than", "-1"],
        ["--older_than", "nan"],
        ["--older_than", "soon"],
    ],
)
def test_rm_of_what_is_no_plan_removes_nothing(plans, capsys, args):
    before = sorted(os.listdir(plans[0].path.parent))
    try:
        code = cli.main(["cache", "rm", *args])
    except SystemExit as end:
        code = end.code
    assert code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert sorted(os.listdir(plans[0].path.parent)) == before


def test_an_unknown_digest_among_known_ones_removes_nothing(plans, capsys):
    assert run(capsys, "rm", plans[0].key.digest, "0" * 12)[0] == 2
    assert left(plans) == [0, 1, 2]


def test_rm_keeps_what_is_being_loaded_and_says_so(plans, capsys):
    with PlanCache().lock(plans[0].key.digest):
        code, _, err = run(capsys, "rm", "--all")
    assert (code, left(plans)) == (1, [0])
    assert "kept" in err


def test_verify_finds_damage_and_removes_it_when_asked(plans, capsys):
    assert run(capsys, "verify")[0] == 0
    raw = bytearray(plans[1].path.read_bytes())
    raw[1000] ^= 1
    plans[1].path.write_bytes(raw)
    plans[2].path.with_suffix(".json").write_text("{}")
    code, out, _ = run(capsys, "verify")
    assert (code, left(plans)) == (1, [0, 1, 2])
    assert f"{plans[1].key.digest[:12]}: its content has changed" in out and "1 of 3 plans are sound" in out
    found = json.loads(run(capsys, "verify", "--remove", "--json")[1])
    assert set(found["damaged"]) == set(found["removed"]) == {plan.key.digest for plan in plans[1:]}
    assert left(plans) == [0]
    assert run(capsys, "verify")[0] == 0


def test_another_folder_can_be_named_and_need_not_exist(plans, capsys, tmp_path):
    assert "0 plans" in run(capsys, "ls", "--plan_cache", tmp_path / "none")[1]
    assert not (tmp_path / "none").exists()
    assert run(capsys, "verify", "--plan-cache", tmp_path / "none")[0] == 0
    assert left(plans) == [0, 1, 2]
