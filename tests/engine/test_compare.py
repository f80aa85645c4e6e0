import numpy as np
import pytest

from worldrt.engine.compare import compare, difference


def test_numbers_of_a_difference():
    row = difference("x", np.array([1.0, 2.0], np.float32), np.array([1.0, 4.0], np.float32))
    assert (row.max_abs, row.relative, row.reference_max) == (2.0, 0.5, 4.0)
    assert row.cosine == pytest.approx(9 / np.sqrt(5 * 17))
    assert row.within(0.5) and not row.within(0.49)


def test_anything_not_finite_is_infinitely_far():
    assert not difference("x", np.array([np.nan]), np.array([1.0])).within(1e9)
    assert not difference("x", np.array([1.0]), np.array([np.inf])).within(1e9)


def test_zero_reference_and_empty():
    assert difference("x", np.zeros(3), np.zeros(3)).cosine == 1.0
    assert difference("x", np.array([0.5]), np.zeros(1)).relative == 0.5
    assert difference("x", np.zeros((0, 2)), np.zeros((0, 2))).max_abs == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="expected shape"):
        compare({"x": np.zeros(2)}, {"x": np.zeros(3)})
