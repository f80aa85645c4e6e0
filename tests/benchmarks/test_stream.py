"""`trt-bench stream`: its own invariants hold, and they notice what they are to notice."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.benchmarks import stream
from worldrt.benchmarks.watch import Watch
from worldrt.engine.errors import BackendError
from worldrt.runtime.live.stamps import LiveFrame, Stamps

PICTURE = np.zeros((2, 2, 3), np.uint8)


def test_sessions_that_are_fast_enough_keep_the_bound_of_the_schedule():
    (photon, added), _ = stream.run(2000, lambda text: None)
    cases = {row[0]: dict(zip(photon.columns, row, strict=True)) for row in photon.rows}
    fast = cases["half the time"]
    assert fast["frames"] == 2000 and fast["late"] == fast["dropped"] == 0
    assert fast["jitter_p95_ms"] < 0.1
    for case in ("half the time", "just enough"):
        assert cases[case]["p95_over_ms"] <= 120
    late = [cases[f"half the time, bound late to level {level}"]["p50_ms"] for level in (3, 2, 1)]
    assert np.allclose(np.diff([fast["p50_ms"], *late]), -250, atol=40)
    assert cases["too slow"]["p50_ms"] > fast["p50_ms"]
    assert [row[0] for row in added.rows] == list(stream.CASES)


@pytest.mark.parametrize(
    "frame",
    (
        LiveFrame(0, PICTURE),
        LiveFrame(2, PICTURE, Stamps(control=2.0, bound=1.0)),
    ),
)
def test_a_frame_out_of_order_is_noticed(frame):
    watch = Watch(0.1)
    watch.take(LiveFrame(1, PICTURE, Stamps(control=0.1, bound=0.2)), 1.0, 1 / 16)
    with pytest.raises(BackendError, match="out of order"):
        watch.take(frame, 1.1, 1 / 16)
