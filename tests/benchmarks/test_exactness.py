"""How far results are apart, against formulas written otherwise."""

import math

import numpy as np
import pytest

from worldrt.benchmarks.contenders.base import Workload
from worldrt.benchmarks.exactness import inputs, rms_error, tables
from worldrt.benchmarks.likeness import psnr_db, ssim

LOAD = Workload(2, (32, 16), (48, 32), 9, 16, 7, 6, 4.0, 7.0, 80.0, 0.002)


def test_psnr_of_a_known_error():
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(black + np.uint8(1), black) == pytest.approx(20 * math.log10(255))
    assert psnr_db(black, black) == math.inf
    assert psnr_db(black, black + np.uint8(255)) == pytest.approx(0)


def test_ssim_is_the_mean_over_windows_by_its_definition():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (13, 15, 3), np.uint8)
    two = np.clip(one.astype(int) + rng.integers(-40, 40, one.shape), 0, 255).astype(np.uint8)
    x, y = (
        0.2126 * p[..., 0] + 0.7152 * p[..., 1] + 0.0722 * p[..., 2] for p in (one.astype(float), two.astype(float))
    )
    offsets = [(i, j) for i in range(11) for j in range(11)]
    weight = np.array([math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for i, j in offsets])
    weight /= weight.sum()
    values = []
    for row in range(3):
        for column in range(5):
            a, b = (np.array([p[row + i, column + j] for i, j in offsets]) for p in (x, y))
            ma, mb = weight @ a, weight @ b
            va, vb, c = weight @ (a - ma) ** 2, weight @ (b - mb) ** 2, weight @ ((a - ma) * (b - mb))
            c1, c2 = 2.55**2, 7.65**2
            values.append((2 * ma * mb + c1) * (2 * c + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert ssim(one, two) == pytest.approx(float(np.mean(values)), rel=1e-9)
    assert ssim(one, one) == pytest.approx(1) and ssim(one, 255 - one) < 0


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
            np.savez(path, frames=np.full((2, 12, 14, 3), 100 + 10 * self.error + 50 * arguments["index"], np.uint8))
        return {}


def test_everyone_is_compared_with_the_exact_one(tmp_path):
    made = tables({"worldrt": Fake(0.0), "int8": Fake(0.1), "diffusers": Fake(0.01)}, LOAD, tmp_path)
    evaluations, frames = made
    errors = {row[2]: row[5] for row in evaluations.rows}
    assert errors == {"int8": pytest.approx(0.1, rel=1e-4), "diffusers": pytest.approx(0.01, rel=1e-3)}
    named = {row[0]: row for row in frames.rows}
    assert list(named) == ["int8", "worldrt, run again", "another video"], "diffusers draws other noise"
    assert named["worldrt, run again"][1:4] == (2, 2, None) and named["worldrt, run again"][5:] == (1, 1)
    assert named["another video"][3] == pytest.approx(20 * math.log10(255 / 50)) and named["another video"][6] < 0.98
    assert frames.rows[0][3] == pytest.approx(20 * math.log10(255))
    assert tables({"int8": Fake(0.1)}, LOAD, tmp_path) == []
