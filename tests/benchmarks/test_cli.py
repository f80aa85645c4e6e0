"""The command line, and a whole comparison with diffusers on a tiny setting."""

import json

import pytest

from worldrt.benchmarks.cli import build_parser, main

VERBS = (
    "cpu",
    "overhead",
    "export",
    "build",
    "kernels",
    "rtsp",
    "io",
    "gpu",
    "all",
    "report",
    "docs",
    "predict",
    "show",
)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help(verb, capsys):
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([*([verb] if verb else []), "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert verb in said if verb else all(name in said for name in VERBS)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["cpu", "--contenders", "nobody"], "nobody; there are worldrt"),
        (["kernels", "--rounds", "0"], "--rounds: expected 1 or more"),
        (["show", "nowhere.json"], "nowhere.json: cannot be read"),
        (["cpu", "--bundle", "nowhere"], "nowhere: no bundle here"),
        (["gpu", "--parts", "sound"], "--parts: no 'sound'; there are build, kernels"),
    ],
)
def test_mistakes_are_one_line(arguments, words, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1] and "Traceback" not in "".join(said)


def test_kernels_are_measured_written_and_shown(tmp_path, capsys):
    assert main(["kernels", "--rounds", "1", "--threads", "1", "--quiet", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (path,) = tmp_path.glob("*-kernels.json")
    assert main(["show", str(path)]) == 0
    assert printed.startswith(capsys.readouterr().out)
    samples = json.loads(path.read_text())["samples"]
    assert all(len(values) == 1 and values[0] > 0 for values in samples.values())
    assert {name.split("/")[0] for name in samples} == {"native", "numpy"}
