"""`trt-run world` and `serve` with a model of several views that `drive` drives, from flags to pictures."""

from __future__ import annotations

import io
from types import SimpleNamespace

import av
import numpy as np
import pytest

from worldrt.runtime import drive_flags, world_opening
from worldrt.runtime.cli import build_parser, main

from .test_layout_world import stand_in


@pytest.fixture(scope="module")
def nano(stubs, tmp_path_factory):
    """A place of bundles that holds `nano-opendwm` and nothing else; torch modules stand for its graphs."""
    place = tmp_path_factory.mktemp("bundles")
    (place / "nano-opendwm").mkdir()
    folder, modules = stand_in(place / "nano-opendwm", stubs)
    return SimpleNamespace(place=place, folder=folder, modules=modules)


@pytest.fixture
def run(nano, stubs, tmp_path, monkeypatch, capsys):
    """Runs `trt-run world` in an empty folder; exit code, and what it printed to stderr."""
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.place))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    stubs.run_by_torch(monkeypatch, nano.modules)

    def call(*flags):
        code = main(["world", "--quiet", *flags])
        return code, capsys.readouterr().err

    return call


def pictures(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.slow
def test_a_model_of_a_family_is_driven_into_a_file_with_its_layouts_over_it(run, tmp_path):
    flags = ("--family", "opendwm", "--model", "nano", "--source", "drive", "--length", "1")
    for name, more in (("over", ()), ("plain", ("--no-overlay",))):
        code, err = run(*flags, *more, "--save_path", f"{name}.mp4")
        assert code == 0, err
    over, plain = pictures(tmp_path / "over.mp4"), pictures(tmp_path / "plain.mp4")
    assert over.shape == plain.shape == (10, 64, 336, 3)
    assert (np.abs(over.astype(int) - plain).max((1, 2, 3)) > 64).all(), "each frame shows its layout"
    assert (np.abs(np.diff(plain.astype(int), axis=0)).mean((1, 2, 3)) > 1).all(), "views move"


def test_settings_of_a_file_count_where_flags_say_nothing(nano, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.place))
    (tmp_path / "c.json").write_text('{"seed": 7, "overlay": false, "vehicles": 1, "walkers": 0}')
    seeds = []
    opened = drive_flags.open_source
    monkeypatch.setattr(
        drive_flags, "open_source", lambda *args, seed, **more: seeds.append(seed) or opened(*args, seed=seed, **more)
    )

    def world_of(*flags):
        name = ("world", "--family", "opendwm", "--model", "nano", "--source", "drive")
        args = build_parser().parse_args([*name, "-c", str(tmp_path / "c.json"), *flags])
        world, _ = world_opening.open_world(args)
        return args.seed, seeds[-1], world.facts()["showing"]["overlay"]

    assert world_of() == (7, 7, False)
    assert world_of("--seed", "3", "--overlay") == (3, 3, True)
    (tmp_path / "c.json").write_text('{"vehicles": 1, "walkers": 0}')
    assert world_of() == (0, 0, True)
