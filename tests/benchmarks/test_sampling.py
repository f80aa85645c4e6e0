"""`trt-bench sampling` on a bundle of nano: what it counts and what it calls exact."""

from __future__ import annotations

import pytest

from worldrt.benchmarks import sampling
from worldrt.runtime.shortcuts import Shortcuts


def test_sampling_is_measured_beside_what_it_is_compared_to(nano_bundle, monkeypatch):
    monkeypatch.setattr(sampling, "SHORTCUTS", {"a": Shortcuts(10.0), "b": Shortcuts(guidance_interval=(0.0, 1.0))})
    (shortcuts, together), samples = sampling.run(nano_bundle, 5, 1, 1, lambda text: None)
    plain, cached, interval = shortcuts.rows
    assert plain[1:4] == (6, 0, 0) and plain[4:7] == (1.0, 1.0, 0.0) and plain[7] is None
    assert cached[1:4] == (2, 0, 4) and cached[6] > 0 and 0 < cached[7] < 100
    assert interval[1] + interval[2] == 6 and interval[2] >= 1 and interval[3] == 0
    assert [row[0] for row in together.rows] == [1, 2, 4] and together.rows[0][2:] == (1.0, 1.0, 0.0)
    assert all(row[4] == pytest.approx(0, abs=1e-5) for row in together.rows)
    assert samples.keys() == {"everything_s", "a_s", "b_s", "1 clips_s", "2 clips_s", "4 clips_s"}
    assert all(len(values) == 1 for values in samples.values())
