"""Normal noise by counter, on host memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from worldrt.kernels import _arguments, _library, _numpy


def counter_normal(
    out: npt.NDArray[np.float32],
    counters: npt.NDArray[np.int64],
    *,
    seed: int,
    first: npt.NDArray[np.int64] | None = None,
    scales: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float32]:
    """Fill `out`, float32 [n, ...], with standard normal noise, and return it: a function of `seed`, of a row's counter
    and of the place in the row alone.

    `counters` is int64 [n, 4]: use, level, frame, row. A row of a negative use stays as it is. `first` int64 [1] is
    added to every frame. `scales` float64 [n] are rounded to float32 and multiply the rounded values.

    The words are those of Philox 4x64-10 with key (seed, use) and counter (1, 2, ...; level; frame; row), the latter
    modulo 2^64. Of N values the first ceil(N / 2) are sqrt(-2 ln u) cos(2 pi v), the others sqrt(-2 ln u) sin(2 pi v),
    with u and v the upper and lower 32 bits of a word, each plus 0.5 and divided by 2^32. Computed in float64 by sums
    and products alone, so the compiled kernels for CPU and CUDA and numpy give the same bits.

    Raises ValueError for arguments that break these rules.
    """
    target = _arguments.host("out", out, None, True)
    table = _arguments.host("counters", counters)
    start = None if first is None else _arguments.host("first", first)
    factors = None if scales is None else _arguments.host("scales", scales)
    packed = _arguments.pack_normal(target, table, start, factors, seed)
    library, _ = _library.load("cpu")
    if library:
        library.counter_normal(packed, 0)
    else:
        _numpy.counter_normal(out, counters, first, scales, seed)
    return out
