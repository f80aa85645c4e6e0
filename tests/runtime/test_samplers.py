"""Sampler tables against the official trajectories, a textbook form in float64, and the order of convergence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from worldrt.engine.errors import InputError
from worldrt.runtime import samplers

GOLDEN = Path(__file__).parents[1] / "golden" / "cosmos"


def run(table, x, x0_of, dtype):
    """States and x0 of every row; arithmetic in float64, the state rounded to `dtype` after each step."""
    states, x0s, prev = [], [], np.zeros_like(x, np.float64)
    for sigma, (a, b, c, _) in zip(table.levels, table.coefficients, strict=True):
        x0 = x0_of(x, dtype(sigma)).astype(dtype)
        x = (a * x.astype(np.float64) + b * x0.astype(np.float64) + c * prev).astype(dtype)
        prev = x0.astype(np.float64)
        states.append(x)
        x0s.append(x0)
    return np.stack(states), np.stack(x0s)


@pytest.mark.parametrize("steps", [5, 35])
@pytest.mark.parametrize("kind", ["f64", "f32"])
def test_ab2_against_official_trajectories(steps, kind):
    with safe_open(GOLDEN / f"sampler_ab2_{steps}.safetensors", "np") as file:
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        meta = json.loads(file.metadata()["meta"])
    table = samplers.table("rectified_flow_ab2", steps, 80.0, 0.002)
    assert len(table) == steps + 1
    np.testing.assert_allclose(table.levels, golden["out.sigmas"], rtol=1e-13, atol=0)

    def x0_of(x, sigma):
        return x.dtype.type(meta["a"]) * x / (1 + sigma) + x.dtype.type(meta["b"]) * np.cos(x)

    dtype = {"f64": np.float64, "f32": np.float32}[kind]
    states, x0s = run(table, golden[f"{kind}.in.x_init"], x0_of, dtype)
    largest = np.abs(golden[f"{kind}.out.states"]).max()
    bound, final = {"f64": (1e-13 * largest, 1e-13), "f32": (2e-5, 2e-6)}[kind]  # f32: its own rounding (meta.noise)
    assert np.abs(states[:-1] - golden[f"{kind}.out.states"]).max() <= bound
    assert np.abs(states[-1] - golden[f"{kind}.out.final"]).max() <= final
    assert np.array_equal(states[-1], x0s[-1])


def exact_affine(x, sigma_from, sigma_to):
    """dx/dsigma = (x - x0) / sigma with x0 = 0.5 x + 1, solved in closed form."""
    return 2 + (x - 2) * np.sqrt(sigma_to / sigma_from)


@pytest.mark.parametrize(("kind", "order"), [("rectified_flow_ab2", 2.0), ("rectified_flow_euler", 1.0)])
def test_order_of_convergence(kind, order):
    errors = []
    for steps in (64, 128, 256):
        table = samplers.table(kind, steps, 10.0, 0.1)
        states, _ = run(table, np.array([3.0]), lambda x, sigma: 0.5 * x + 1, np.float64)
        reached = table.levels[-1]
        errors.append(abs(states[-2][0] - exact_affine(3.0, 10.0, reached)))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(rates - order) < 0.15), rates


def test_ab2_textbook():
    """The same solver written as variation of constants: x0 is extrapolated linearly in log sigma and integrated."""
    table = samplers.rectified_flow_ab2(9, 80.0, 0.002)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    for i in range(1, 9):
        before, here, after = -np.log(table.levels[i - 1 : i + 2])
        lam = here + (after - here) * (nodes + 1) / 2
        kernel = np.exp(lam - after) * weights * (after - here) / 2
        previous = np.sum(kernel * (lam - here) / (before - here))
        current = np.sum(kernel * (lam - before) / (here - before))
        expected = (np.exp(here - after), current, previous, 0.0)
        np.testing.assert_allclose(table.coefficients[i], expected, rtol=1e-11, atol=1e-13)


KINDS = [(kind, steps) for kind in samplers.names() for steps in (1, 2, 4, 7) if kind != "distilled" or steps < 5]


@pytest.mark.parametrize(("kind", "steps"), KINDS)
def test_tables_keep_constants_and_end_clean(kind, steps):
    table = samplers.table(kind, steps, 80.0, 0.002)
    assert np.all(np.diff(table.levels) < 0) and table.levels[0] == pytest.approx(80.0)
    np.testing.assert_allclose(table.coefficients[:, :3].sum(1), 1.0, atol=1e-12)  # x = x0 = const stays
    assert tuple(table.coefficients[-1]) == (0, 1, 0, 0)
    assert len(table) == steps + (kind == "rectified_flow_ab2")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("heun", 5, 80.0, 0.002), "rectified_flow_ab2, rectified_flow_euler"),
        (("table", 5, 80.0, 0.002), "unknown"),
        (("rectified_flow_ab2", 0, 80.0, 0.002), "steps"),
        (("rectified_flow_ab2", 5, 0.001, 0.002), "sigma_min"),
        (("rectified_flow_ab2", 5, 80.0, 0.0), "sigma_min"),
        (("rectified_flow_ab2", 5, float("nan"), 0.002), "sigma_min"),
        (("distilled", 5, 80.0, 0.002), "1 to 4 steps, got 5"),
        (("distilled", 2, 3.0, 0.002), "sigma_max above 3.6"),
    ],
)
def test_bad_numbers(arguments, text):
    with pytest.raises(InputError, match=text):
        samplers.table(*arguments)
