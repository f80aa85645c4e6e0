"""Everything at once: parts that fail or lack something do not stop the others, and the report is made."""

import json
import re
from pathlib import Path

import pytest

from worldrt.benchmarks import everything, overhead
from worldrt.benchmarks.cli import build_parser, main
from worldrt.benchmarks.contenders import frames
from worldrt.benchmarks.everything import PARTS, Part

ROOT = Path(__file__).parents[2]


def test_every_part_is_a_verb_of_the_command_line():
    for part in PARTS:
        for more in ((), part.short):
            args = build_parser().parse_args([*part.arguments, *more, "--output", "x", "--quiet"])
            assert args.verb == part.name
    assert build_parser().parse_args(["engines"]).measure is build_parser().parse_args(["build"]).measure


def test_all_parts_fit_into_the_budget_where_nobody_else_uses_the_machine():
    budget = build_parser().parse_args(["all"]).budget_s
    assert sum(part.seconds for part in PARTS if not part.gpu) + everything.REPORT_S <= budget
    assert all(part.least_s <= part.seconds for part in PARTS)
    assert sum(part.least_s for part in PARTS) + everything.REPORT_S <= budget, "with a GPU, too"


def test_make_bench_installs_what_the_parts_need_but_compilers_of_engines():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {
        re.split(r"[^\w-]", need)[0].replace("-", "_") for name in ("export", "bench") for need in offered[name]
    }
    assert {need for part in PARTS for need in part.needs} - installed == {"tensorrt_rtx"}


def test_parts_that_fail_or_lack_something_are_named_and_the_rest_is_reported(tmp_path, monkeypatch, capfd):
    parts = (
        Part(("kernels", "--rounds", "1", "--threads", "1"), 30),
        Part(("io", "--frames", "0"), 30),
        Part(("build",), 30, needs=("no_such_package",)),
        Part(("gpu",), 30, gpu=True),
        Part(("stream", "--frames", "300"), 30),
    )
    monkeypatch.setattr(everything, "PARTS", parts)
    monkeypatch.setattr(everything, "PATIENCE", 20.0)
    monkeypatch.setattr(everything.machine, "has_gpu", lambda: False)
    assert main(["all", "--output", str(tmp_path / "out"), "--budget_s", "900"]) == 1
    said = capfd.readouterr().err
    assert "build: left out: no_such_package is not installed" in said and "gpu: left out: no GPU" in said
    assert "--frames: expected 1 or more" in said and "failed: io" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "trt-bench kernels" in page and "trt-bench stream" in page and "trt-bench io" not in page
    assert (tmp_path / "out" / "report.md").is_file()


def test_what_does_not_fit_is_made_shorter_before_it_is_left_out(tmp_path, monkeypatch, capfd):
    parts = (
        Part(("cpu",), 50, ("--rounds", "3"), 20),
        Part(("io",), 40, ("--rounds", "2"), 10),
        Part(("stream",), 30),
        Part(("kernels",), 500),
    )
    seen = []

    def measure(part, short, bundle, output, limit_s):
        seen.append((part.name, short, limit_s))
        return "stopped after 9 s" if part.name == "io" else ""

    monkeypatch.setattr(everything, "PARTS", parts)
    monkeypatch.setattr(everything, "_measure", measure)
    monkeypatch.setattr(everything.report_cli, "write", lambda *given: [])
    monkeypatch.setattr(everything.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(everything, "REPORT_S", 5.0)
    assert main(["all", "--output", str(tmp_path), "--budget_s", "580"]) == 1
    said = capfd.readouterr().err
    assert [(name, short) for name, short, _ in seen] == [
        *(("cpu", ("--rounds", "3")), ("io", ()), ("stream", ()), ("kernels", ())),
    ], "575 s, less what later parts need at least: 35 for cpu, 45 for io, 75 for stream"
    assert [limit for *_, limit in seen] == [35.0, 45.0, 75.0, 575.0]
    assert "cpu: 0 s after the start, in its shorter form" in said and "failed: io" in said
    assert main(["all", "--output", str(tmp_path), "--budget_s", "520"]) == 0
    said = capfd.readouterr().err
    assert all(f"{part.name}: left out: no time is left for it" in said for part in parts[:3])


def test_a_part_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    real = everything.subprocess.Popen
    monkeypatch.setattr(everything.subprocess, "Popen", lambda command, **more: real(["/bin/sleep", "600"], **more))
    assert everything._measure(Part(("cpu",), 1), (), None, tmp_path, 0.2) == "stopped after 0 s"


@pytest.mark.parametrize("ours", [True, False])
def test_a_round_of_frames_writes_and_reads_every_one(tmp_path, monkeypatch, ours):
    monkeypatch.setattr(frames, "SIZES", {"tiny": (64, 32)})
    made = frames.open(ours, str(tmp_path), 5)
    assert made._clips["tiny"].shape == (5, 32, 64, 3) and made._clips["tiny"].std() > 20
    seconds = made.round(0)["seconds"]
    assert list(seconds) == ["convert tiny", "write tiny", "read tiny"] and min(seconds.values()) > 0
    assert not list(tmp_path.iterdir()), "the file is thrown away"


def test_a_step_calls_the_device_for_nothing_after_the_first(nano_bundle):
    from worldrt.runtime.models import Models

    models = Models.open([nano_bundle], backend="null", guidance="batched")
    bound, rows = overhead._bound(models, "video2world", 2)
    counts = dict(zip(overhead.DEVICE_CALLS, overhead._device_calls(bound, rows), strict=True))
    assert not any(counts.values()), counts
    assert all(size == 0 for size in overhead._allocations(bound, rows)[1:2])


def test_roofs_and_limits_are_those_of_the_numbers_given():
    from worldrt.benchmarks import limits
    from worldrt.benchmarks.costs.work import Work

    roof, work = limits.Roof(100e9, 10e9), {"a": Work(linear=200e9), "b": Work(weight_bytes=5e9, linear=1e9)}
    assert roof.limit_s(work["a"]) == 2 and roof.limit_s(work["b"]) == 0.5
    rows = {row[0]: row for row in limits.table(work, {"a": [4.0], "b": [1.0]}, roof).rows}
    assert rows["a"][5:] == (50, 50) and rows["b"][6] == 50
    drawn = limits.figure({"b": work["b"]}, {"b": [1.0]}, roof)
    assert drawn.series == {"roof": ((10, 100),), "b": ((0.2, 1),)}
    assert json.dumps(drawn.series)
