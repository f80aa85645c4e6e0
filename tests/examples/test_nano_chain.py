"""`examples/nano/train.sh`: from nothing to two bundles that were measured."""

import argparse
import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from worldrt.engine.bundle import read_manifest

NANO = Path(__file__).parents[2] / "examples" / "nano"
sys.path.insert(0, str(NANO))


class UnderstoodError(Exception):
    """Raised in place of the work, once the flags are read."""


@pytest.mark.parametrize("smoke", ("0", "1"))
def test_every_step_of_the_chain_understands_its_flags(smoke, tmp_path, monkeypatch):
    recorder, calls = tmp_path / "python", tmp_path / "calls"
    recorder.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {shlex.quote(str(calls))}\n')
    recorder.chmod(0o755)
    environment = os.environ | {"PYTHON": str(recorder), "SMOKE": smoke}
    subprocess.run(["sh", str(NANO / "train.sh"), "runs"], env=environment, check=True, timeout=60)

    parse = argparse.ArgumentParser.parse_args

    def only_parse(self, *given):
        parse(self, *given)
        raise UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    steps = [shlex.split(line) for line in calls.read_text().splitlines()]
    for script, *flags in steps:
        monkeypatch.setattr(sys, "argv", [script, *flags])
        with pytest.raises(UnderstoodError):
            importlib.import_module(Path(script).stem).main()
    names = [Path(script).stem for script, *_ in steps]
    assert names[-2:] == ["package_world", "evaluate_world"] and len(names) == 13


@pytest.mark.slow
def test_the_chain_runs_from_nothing_to_two_measured_bundles(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "SMOKE": "1", "WORKERS": "1"}
    done = subprocess.run(
        ["sh", str(NANO / "train.sh"), str(tmp_path)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert read_manifest(tmp_path / "nano").family == "cosmos"
    assert read_manifest(tmp_path / "nano-matrix").family == "matrix"
    measured = json.loads(done.stdout[done.stdout.rindex("\n{\n") :])
    assert measured["in_flight_frames"] == 16 and 5 < measured["vae_psnr_db"] < 30
    for name in ("pictures", "videos", "world", "world-vae", "world-long"):
        assert (tmp_path / "strips" / f"{name}.png").is_file()
