"""What ranks say to each other equals the formula; scaling is predicted for all models."""

from __future__ import annotations

from worldrt.benchmarks import scale
from worldrt.benchmarks.machine import identify
from worldrt.benchmarks.report.page import html
from worldrt.benchmarks.report.plots import draw
from worldrt.benchmarks.results import report


def test_counts_equal_the_formula_and_scaling_is_within_bounds(tmp_path):
    (traffic, overhead, scaling), samples, extra = scale.run("h100", 2, tmp_path, lambda text: None)
    assert [(row[0], *row[-2:]) for row in traffic.rows] == [(ranks, mode, n) for ranks, _, mode, n in scale.RUNS]
    assert all(row[6] == "yes" and row[2] == row[4] > 0 and row[3] == row[5] > 0 for row in traffic.rows)
    assert traffic.rows[0][2] == scale.SMALL.blocks and traffic.rows[2][2] == 1
    gather, ulysses = (row for row in traffic.rows if row[0] == 4 and row[-1] == 1)
    assert ulysses[2] == 2 * gather[2] and 1.9 < gather[3] / ulysses[3] < 2.1, "P / 2 times less, twice as often"
    assert overhead.rows[0][0] == 29 and len(samples["segment_s"]) == 2
    assert {(row[0], row[1], row[2]) for row in scaling.rows} == {
        (size, resolution, count) for size in ("2B", "14B") for resolution in ("480p", "720p") for count in (2, 4, 8)
    }
    assert all(0 < row[5] <= 100 for row in scaling.rows)
    (drawn,) = extra.figures
    assert drawn.kind == "scaling" and drawn.series["2B 720p, predicted"][0] == (1, 1.0)
    row = next(row for row in scaling.rows if row[:3] == ("2B", "720p", 8))
    assert drawn.series["2B 720p, predicted"][-1] == (8, 8 * row[5] / 100) and row[6] == "57 % (official code)"
    assert drawn.series["published: official code"] == ((8, 8 * 0.57),)
    assert [y for _, y in drawn.series["published: other systems, 14B to 30B"]] == [8 * 0.86, 8 * 0.89]
    assert "<svg" in draw(drawn) and html([report("scale", identify(["scale"]), {}, [scaling], samples, extra)])
