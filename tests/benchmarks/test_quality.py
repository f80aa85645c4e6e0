"""Quality beside speed: videos against float32, single steps, schedules, and the control of a world."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from worldrt.benchmarks import curvature, likeness, quality, schedules, steering, trajectory
from worldrt.benchmarks.cli import main
from worldrt.benchmarks.results import read
from worldrt.engine.packaged import packaged
from worldrt.runtime.shortcuts import Shortcuts

NANO = Path(__file__).parents[2] / "examples" / "nano"
OPTIONS = {"threads": 1}


@pytest.fixture(scope="module")
def drawn():
    """What draws the nano world."""
    sys.path.insert(0, str(NANO))
    try:
        return importlib.import_module("render"), importlib.import_module("motion"), importlib.import_module("scene")
    finally:
        sys.path.remove(str(NANO))


def test_ways_are_compared_with_float32_and_with_two_measures_of_the_measure(tmp_path):
    made, samples, extra = quality.run(
        {"float32": quality.Source(packaged("nano"), options=OPTIONS),
         "none": quality.Source(tmp_path, options=OPTIONS)},
        4, 1, ["--sampler rectified_flow_euler", "none"], lambda text: None,
    )  # fmt: skip
    rows = {row[0]: row for row in made[0].rows}
    euler, again, another = (rows[n] for n in ("--sampler rectified_flow_euler", "run again", "another video"))
    assert euler[2:4] == (17, 0) and another[5] + 3 < euler[5] and another[7] < euler[7] < 1
    assert again[2:6] == (17, 17, None, None) and again[6:8] == (1, 1)
    lacking = next(name for name in rows if name.startswith("none: not run: "))
    assert "bundle.json" in lacking and rows[lacking][1:] == (None,) * (len(made[0].columns) - 1)
    assert samples.keys() == {"float32/whole_s", "--sampler rectified_flow_euler/whole_s"}
    assert extra.hashes.keys() == {"bundle of float32"}
    assert any("LPIPS was not measured (" in note for note in made[0].notes) or len(made[0].columns) == 9


def test_a_run_drifts_by_what_its_steps_miss():
    exact = quality.opened(quality.Source(packaged("nano"), options=OPTIONS))
    made = trajectory.table(exact, {"the same": exact}, {"cached": Shortcuts(10.0)}, 3)
    same, cached = made.rows
    assert same[1:] == (0,) * 7, "the same network is nowhere apart"
    assert cached[1:3] == (None, None) and cached[3] == 0 and cached[7] > 0


def test_frames_that_come_one_after_another_begin_with_the_same_picture():
    exact = quality.opened(quality.Source(packaged("nano"), options=OPTIONS))
    made, seconds = schedules.table(exact, 2, 1, lambda text: None)
    whole, *others = made.rows
    assert whole[4:6] == (17, 17) and whole[2] == 4
    assert all(row[5] >= 1 and row[6] > 10 for row in others), "the given picture is the same, and no other is noise"
    assert [row[2] for row in others] == [2, 2, 1] and [row[1] for row in others] == [1, 1, 2]
    assert len(seconds) == len(made.rows)


@pytest.mark.parametrize(("weather", "time"), [("clear", "day"), ("rain", "dusk"), ("snow", "night")])
def test_the_curvature_that_was_drawn_is_measured(drawn, weather, time):
    render, motion, scene = drawn
    for number, place in enumerate(scene.PLACES):
        shown = scene.Scene(number, place, weather, time, "white", ("D",))
        for bend in (-0.011, 0.0, 0.007):
            state = motion.State(frame=number, distance_m=17.0 * number, curvature_per_m=bend)
            assert curvature.curvature_per_m(render.draw(shown, state)) == pytest.approx(bend, abs=0.0021)


class Drawn:
    """A world that draws what it is told, some frames later."""

    controls, frames_at_once = ("D", "DL", "DR"), 4

    def __init__(self, drawn, late, sign=1.0):
        self._render, self._motion, scene = drawn
        self._scene = scene.Scene(1, "desert", "clear", "day", "white", ("D",))
        self.video, self.schedule = SimpleNamespace(fps=16), SimpleNamespace(group=1, given=0)
        self._told, self._late, self._sign, self._number = [], late, sign, 0

    def encode(self, prompt):
        return prompt

    def condition(self, control):
        return {"control": np.array(0.011 * self._sign * steering.TURNS[control])}

    def first(self, told, seed, base):
        return None

    def queue(self, told, feed, seed):
        def run():
            number = self._number
            self._number += 1
            self._told += [float(feed(number).values["control"])] * 4
            return [SimpleNamespace(number=number, latent=np.full((1, 1, 1, 1), float(number), np.float32))]

        return SimpleNamespace(start=lambda video: None, run=run)

    def decoder(self):
        return self._decode

    def _decode(self, latents):
        first = 4 * int(latents.flat[0])
        bends = [0.0] * self._late + self._told
        return [
            self._render.draw(self._scene, self._motion.State(frame=i, distance_m=0.9 * i, curvature_per_m=bends[i]))
            for i in range(first, first + 4)
        ]


@pytest.mark.parametrize(("late", "sign", "obeyed"), [(7, 1.0, "100%"), (0, -1.0, None)])
def test_control_is_what_the_pictures_show_of_it(drawn, late, sign, obeyed):
    samples = {}
    latents, _, lag, correlation, turns, judged = steering._measured(Drawn(drawn, late, sign), 8, "own", samples)
    assert latents == 32 and len(samples["own/latent_ms"]) == 32
    if obeyed:
        assert lag == late and correlation > 0.95 and turns == obeyed and judged == 57
    else:
        assert correlation < 0.5 or turns != "100%", "a world that turns the wrong way does not obey"


def test_without_a_trained_world_its_table_says_so(monkeypatch):
    monkeypatch.setattr(steering, "packaged", lambda model: None)
    made, samples = steering.table(None, 1, 1, lambda text: None)
    assert made.rows[0][0].startswith("not measured: no trained nano-matrix") and samples == {}


def test_lpips_is_taken_where_its_package_is(monkeypatch):
    monkeypatch.setattr(likeness, "_of_lpips", lambda: lambda a, b: 0.25)
    measure, why = likeness.open_lpips()
    black = np.zeros((16, 16, 3), np.uint8)
    found = likeness.likeness([black], [black + np.uint8(1)], measure)
    assert why == "" and found.lpips == (0.25,) and len(found.cells) == len(likeness.COLUMNS) + 1


def test_the_verb_keeps_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        schedules, "table", lambda *given: (replace(steering.table(None, 1, 1, print)[0], title="S"), {})
    )
    monkeypatch.setattr(steering, "packaged", lambda model: None)
    arguments = ["quality", "--parts", "schedules", "control", "--no_int8", "--output", str(tmp_path), "--quiet"]
    assert main(arguments) == 0
    (path,) = tmp_path.glob("*-quality.json")
    assert [table.title for table in read(path).tables] == ["S", "Control of a world, by schedule"]
    assert main(["quality", "--steps", "0"]) == 2 and "expected 1 or more" in capsys.readouterr().err
    assert main(["quality", "--bundles", "fp8"]) == 2 and "NAME=FOLDER" in capsys.readouterr().err
