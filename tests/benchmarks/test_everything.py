"""Everything at once: parts that fail or lack something do not stop the others, and the report is made."""

import json
from dataclasses import replace

import pytest

from worldrt.benchmarks import everything, overhead
from worldrt.benchmarks.cli import build_parser, main
from worldrt.benchmarks.contenders import frames
from worldrt.benchmarks.everything import PARTS, Part
from worldrt.benchmarks.machine import Machine, caution


def test_every_part_is_a_verb_of_the_command_line():
    for part in PARTS:
        args = build_parser().parse_args([*part.arguments, "--output", "x", "--quiet"])
        assert args.verb == part.name
    assert build_parser().parse_args(["engines"]).measure is build_parser().parse_args(["build"]).measure


def test_parts_that_fail_or_lack_something_are_named_and_the_rest_is_reported(tmp_path, monkeypatch, capfd):
    parts = (
        Part(("kernels", "--rounds", "1", "--threads", "1")),
        Part(("io", "--frames", "0")),
        Part(("build",), ("no_such_package",)),
        Part(("gpu",), gpu=True),
        Part(("stream", "--frames", "300")),
    )
    monkeypatch.setattr(everything, "PARTS", parts)
    monkeypatch.setattr(everything.machine, "has_gpu", lambda: False)
    assert main(["all", "--output", str(tmp_path / "out")]) == 1
    said = capfd.readouterr().err
    assert "build: left out: no_such_package is not installed" in said and "gpu: left out: no GPU" in said
    assert "--frames: expected 1 or more" in said and "failed: io" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "trt-bench kernels" in page and "trt-bench stream" in page and "trt-bench io" not in page
    assert (tmp_path / "out" / "report.md").is_file()


def test_no_part_begins_when_the_time_is_over(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(everything, "PARTS", (Part(("kernels",)),))
    assert main(["all", "--output", str(tmp_path), "--limit_s", "-1"]) == 2
    assert "kernels: left out: the time is over" in capfd.readouterr().err


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


def test_a_busy_machine_is_said_to_be_one():
    quiet = Machine("", "", None, False, "", (), 4, 0, 1.0, (), "", "", {})
    assert caution(quiet) == "" and "placeholders" in caution(replace(quiet, load=3.0))


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
