"""How far results are apart, against formulas written otherwise."""

import math

import numpy as np
import pytest

from worldrt.benchmarks.contenders.base import Workload
from worldrt.benchmarks.exactness import inputs, psnr_db, rms_error, tables

LOAD = Workload(2, (32, 16), (48, 32), 9, 16, 7, 6, 4.0, 7.0, 80.0, 0.002)


def test_psnr_of_a_known_error():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(black + np.uint8(1), black) == pytest.approx(20 * math.log10(255))
    assert psnr_db(black, black) == math.inf
    assert psnr_db(black, black + np.uint8(255)) == pytest.approx(0)


def test_rms_error_is_relative():
    reference = np.array([3.0, -4.0], np.float32)
    assert rms_error(reference * np.float32(1.5), reference) == pytest.approx(0.5)


def test_inputs_have_the_sizes_of_the_workload():
    given = inputs(LOAD, "video2world", 80.0)
    assert given["x"].shape == (1, 16, 3, 4, 6) == given["clean"].shape
    assert given["text"].shape == (1, 7, 6) and given["mask"].tolist() == [[1, 0, 0]]
    assert np.std(given["x"]) == pytest.approx(80, rel=0.2)
    assert inputs(LOAD, "text2image", 2.0)["x"].shape == (1, 16, 1, 2, 4)


class Fake:
    """Evaluates to its inputs plus an error."""

    def __init__(self, error):
        self.error = error

    def ask(self, command, path, **arguments):
        if command == "denoise":
            np.savez(path, x0=np.load(arguments["given"])["x"] * np.float32(1 + self.error))
        else:
            np.savez(path, frames=np.full((2, 4, 4, 3), 100 + 10 * self.error, np.uint8))
        return {}


def test_everyone_is_compared_with_the_exact_one(tmp_path):
    made = tables({"worldrt": Fake(0.0), "int8": Fake(0.1), "diffusers": Fake(0.01)}, LOAD, tmp_path)
    evaluations, frames = made
    errors = {row[2]: row[5] for row in evaluations.rows}
    assert errors == {"int8": pytest.approx(0.1, rel=1e-4), "diffusers": pytest.approx(0.01, rel=1e-3)}
    assert [row[0] for row in frames.rows] == ["int8"], "diffusers draws other noise"
    assert frames.rows[0][3] == pytest.approx(20 * math.log10(255))
    assert tables({"int8": Fake(0.1)}, LOAD, tmp_path) == []
