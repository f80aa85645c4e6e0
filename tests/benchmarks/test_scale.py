"""What ranks say to each other equals the formula; scaling is predicted for all models."""

from __future__ import annotations

from worldrt.benchmarks import scale


def test_counts_equal_the_formula_and_scaling_is_within_bounds(tmp_path):
    (traffic, overhead, scaling), samples = scale.run("h100", 2, tmp_path, lambda text: None)
    assert [row[0] for row in traffic.rows] == [2, 3, 2, 4]
    assert all(row[-1] == "yes" and row[2] == row[4] > 0 and row[3] == row[5] > 0 for row in traffic.rows)
    assert traffic.rows[0][2] == scale.SMALL.blocks and traffic.rows[2][2] == 1
    assert overhead.rows[0][0] == 29 and len(samples["segment"]) == 2
    assert {(row[0], row[1], row[2]) for row in scaling.rows} == {
        (size, resolution, count) for size in ("2B", "14B") for resolution in ("480p", "720p") for count in (2, 4, 8)
    }
    assert all(0 < row[5] <= 100 for row in scaling.rows)
