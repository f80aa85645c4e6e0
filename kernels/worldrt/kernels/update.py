"""The guided multistep update of a diffusion sampler, on host memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from worldrt.kernels import _arguments, _library, _numpy

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_FAULTS = {
    -2: "coefficients: expected c = 0 in every row without prev, got another value",
    -3: "coefficients: expected d = 0 in every row without noise, got another value",
}


class MultistepUpdate:
    """`multistep_update` bound to static buffers: checks once, then `update(coefficients)` allocates nothing.

    Takes the arguments of `multistep_update` but the coefficients. The buffers are held, not copied: write new
    values into them between calls. That holds for `keep` too where it is bool or uint8 (another dtype is converted
    once). `out` is the attribute `out`. Not safe for concurrent calls.
    """

    def __init__(
        self,
        x: Float32,
        x0: Array,
        *,
        uncond: Array | None = None,
        guidance: float = 0.0,
        prev: Float32 | None = None,
        noise: Float32 | None = None,
        keep: Array | None = None,
        shift: int = 0,
        fill: Float32 | None = None,
        out: Float32 | None = None,
        guided_out: Float32 | None = None,
        dtype: str | None = None,
    ) -> None:
        self._bound = _bind(x, x0, uncond, guidance, prev, noise, keep, shift, fill, out, guided_out, dtype)
        self.out = self._bound.out

    def __call__(self, coefficients: npt.ArrayLike) -> Float32:
        """Run with these rows (a, b, c, d), [T, 4] or [B, T, 4]; returns `out`."""
        return _run(self._bound, coefficients)


class _Bound(NamedTuple):
    packed: bytes
    rows: npt.NDArray[np.float64]  # [B, T, 4]: the memory that `packed` takes coefficients from
    arrays: tuple[Any, ...]  # for the numpy twin, and so that they live as long as `packed`
    out: Float32


def _bind(
    x: Float32,
    x0: Array,
    uncond: Array | None,
    guidance: float,
    prev: Float32 | None,
    noise: Float32 | None,
    keep: Array | None,
    shift: int,
    fill: Float32 | None,
    out: Float32 | None,
    guided_out: Float32 | None,
    dtype: str | None,
) -> _Bound:
    """Check and pack everything but the coefficients."""
    view = _arguments.host
    x_view = view("x", x, None, out is x)
    if out is None:
        out = np.empty(x.shape, np.float32)
    prev_view = None if prev is None else view("prev", prev, None, guided_out is prev)
    guided_view = prev_view
    if guided_out is not prev:
        guided_view = None if guided_out is None else view("guided_out", guided_out, None, True)
    operands = (
        x_view,
        view("x0", x0, dtype),
        None if uncond is None else view("uncond", uncond, dtype),
        prev_view,
        None if noise is None else view("noise", noise),
        None if fill is None else view("fill", fill),
        x_view if out is x else view("out", out, None, True),
        guided_view,
    )
    kept = None
    if keep is not None:
        keep = keep if keep.dtype in (np.bool_, np.uint8) else keep != 0
        kept = view("keep", keep)
    rows = np.empty(_arguments.rows_shape(x_view.shape))
    packed = _arguments.pack_update(operands, view("coefficients", rows), kept, shift, guidance)
    arrays = (x, x0, uncond, guidance, prev, noise, rows, keep, shift, fill, out, guided_out)
    return _Bound(packed, rows, arrays, out)


def _run(bound: _Bound, coefficients: npt.ArrayLike) -> Float32:
    packed, rows, arrays, out = bound
    new = np.asarray(coefficients, np.float64)
    if new.shape != rows.shape and new.shape != rows.shape[1:]:
        expected = f"{list(rows.shape[1:])} or {list(rows.shape)}"
        raise ValueError(f"coefficients: expected shape {expected}, got {list(new.shape)}")
    rows[...] = new
    library, _ = _library.load("cpu")
    fault = library.multistep_update(packed, 0) if library else _numpy.multistep_update(*arrays)
    if fault:
        raise ValueError(_FAULTS[fault])
    return out


def multistep_update(
    x: Float32,
    x0: Array,
    *,
    uncond: Array | None = None,
    guidance: float = 0.0,
    prev: Float32 | None = None,
    noise: Float32 | None = None,
    coefficients: npt.ArrayLike,
    keep: Array | None = None,
    shift: int = 0,
    fill: Float32 | None = None,
    out: Float32 | None = None,
    guided_out: Float32 | None = None,
    dtype: str | None = None,
) -> Float32:
    """One guided step of a linear multistep sampler, and the shift of a latent queue. Returns `out`.

    For latent frame t, with (a, b, c, d) its row of `coefficients`:

        g = x0 + guidance * (x0 - uncond)          g = x0 without uncond; the convention of Cosmos-Predict2
        y = x where keep, else a*x + b*g + c*prev + d*noise
        out[t] = y[t + shift];  out[T - shift + j] = fill[j]
        guided_out[t] = g[t + shift], then zeros: the `prev` of the next step

    in float64 (terms added in this order, an absent one left out), rounded once to float32; the same bits from the
    compiled kernels for CPU and CUDA and from numpy. `prev` and `noise` must be finite even where c or d is 0.

    Arrays are numpy, [B, C, T, H, W] or any shape [B, C, T, ...], contiguous after T, of any stride over B, C, T:

        x, prev, noise, out, guided_out   float32; `out` is made if absent
        x0, uncond                        float32, float16 or bfloat16, both the same
        coefficients                      float64 [T, 4] or [B, T, 4]
        keep                              [T] or [B, T], not 0 where the frame is left as it is
        fill                              float32 [B, C, shift, ...], scaled to the level of the frames it opens

    bfloat16 is an array of ml_dtypes.bfloat16, or with `dtype="bfloat16"` the bits as uint16.

    An output may be exactly the memory of x, x0, uncond, prev or noise where that is float32 (in place: out is x,
    guided_out is prev): every value is read before its place is written. Any other overlap with an output is an error.

    Raises ValueError for arguments that break these rules. `MultistepUpdate` checks them once for many calls.
    """
    bound = _bind(x, x0, uncond, guidance, prev, noise, keep, shift, fill, out, guided_out, dtype)
    return _run(bound, coefficients)
