"""multistep_update against its formula in float64, bit for bit, compiled and in numpy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldrt.kernels import MultistepUpdate, multistep_update

from .update_reference import Operands, assert_same_bits, reference_update, stored

SHAPE = (2, 3, 5, 3, 4)

pytestmark = pytest.mark.usefixtures("implementation")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shift", [0, 1, 3, 5])
def test_every_term_at_once(dtype: str, shift: int) -> None:
    o = Operands(SHAPE, dtype, shift)
    case: dict[str, Any] = {"uncond": o.uncond, "guidance": 6.5, "prev": o.prev, "noise": o.noise}
    case |= {"coefficients": o.rows, "keep": o.keep, "shift": shift, "fill": o.fill}
    guided = np.empty_like(o.x)
    out = multistep_update(o.x, o.x0, **case, guided_out=guided, dtype=dtype)
    expected, expected_guided = reference_update(o.x, o.x0, **case)
    assert_same_bits(out, expected)
    assert_same_bits(guided, expected_guided)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(1, 3)] * 2, st.integers(1, 6), st.integers(1, 70)),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    present=st.sets(st.sampled_from(["uncond", "prev", "noise", "keep", "guided"])),
    shared=st.booleans(),
    in_place=st.booleans(),
    data=st.data(),
)
def test_any_mix_of_operands(
    shape: tuple[int, ...], dtype: str, present: set[str], shared: bool, in_place: bool, data: st.DataObject
) -> None:
    shift = data.draw(st.integers(0, shape[2]))
    o = Operands(shape, dtype, shift, seed=data.draw(st.integers(0, 2**16)))
    rows = o.shared_rows if shared else o.rows
    rows[..., 2] *= "prev" in present
    rows[..., 3] *= "noise" in present
    case: dict[str, Any] = {name: getattr(o, name) for name in ("uncond", "prev", "noise") if name in present}
    case |= {"coefficients": rows, "guidance": 3.0, "shift": shift, "fill": o.fill}
    if "keep" in present:
        case["keep"] = o.keep[0].astype(np.float32) if shared else o.keep
    expected, expected_guided = reference_update(o.x, o.x0, **case)
    guided = o.prev if in_place and "prev" in present else np.empty_like(o.x)
    outputs: dict[str, Any] = {"out": o.x if in_place else None}
    outputs["guided_out"] = guided if "guided" in present else None
    out = multistep_update(o.x, o.x0, **case, **outputs, dtype=dtype)
    assert_same_bits(out, expected)
    assert (out is o.x) == in_place
    if "guided" in present:
        assert_same_bits(guided, expected_guided)


def test_large_enough_for_threads_and_blocks() -> None:
    o = Operands((1, 4, 5, 9001), "float16", shift=2)
    case: dict[str, Any] = {"uncond": o.uncond, "guidance": 2.0, "coefficients": o.rows, "shift": 2}
    case |= {"prev": o.prev, "noise": o.noise, "fill": o.fill}
    expected, _ = reference_update(o.x, o.x0, **case)
    assert_same_bits(multistep_update(o.x, o.x0, **case, out=o.x), expected)


@pytest.mark.parametrize("output", ["x", "x0", "uncond", "prev", "noise"])
@pytest.mark.parametrize("which", ["out", "guided_out"])
def test_either_output_may_be_any_operand(output: str, which: str) -> None:
    o = Operands(SHAPE, shift=2)
    case: dict[str, Any] = {"uncond": o.uncond, "guidance": 7.0, "prev": o.prev, "noise": o.noise}
    case |= {"coefficients": o.rows, "keep": o.keep, "shift": 2, "fill": o.fill}
    expected = reference_update(o.x, o.x0, **case)
    outputs = {"out": np.empty_like(o.x), "guided_out": np.empty_like(o.x), which: getattr(o, output)}
    multistep_update(o.x, o.x0, **case, **outputs)
    assert_same_bits(outputs["out"], expected[0])
    assert_same_bits(outputs["guided_out"], expected[1])


def test_frames_of_larger_buffers() -> None:
    queue = Operands((2, 3, 12, 3, 4))
    before = queue.x.copy()
    x, prev, fill = queue.x[:, :, 2:7], queue.prev[:, :, 4:9], queue.x[:, :, 8:10]
    x0 = queue.x0.transpose(1, 0, 2, 3, 4).copy().transpose(1, 0, 2, 3, 4)[:, :, ::2][:, :, :5]
    noise = np.broadcast_to(queue.noise[:1, :, :5], x.shape)
    rows = queue.rows[:, :5]
    expected, guided = reference_update(x, x0, coefficients=rows, prev=prev, noise=noise, shift=2, fill=fill.copy())
    multistep_update(x, x0, coefficients=rows, prev=prev, noise=noise, shift=2, fill=fill, out=x, guided_out=prev)
    assert_same_bits(queue.x[:, :, 2:7], expected)
    assert_same_bits(queue.prev[:, :, 4:9], guided)
    assert_same_bits(queue.x[:, :, :2], before[:, :, :2])
    assert_same_bits(queue.x[:, :, 7:], before[:, :, 7:])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_precision_number_is_read_exactly(dtype: str) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    x0 = bits.view(np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    x0 = x0[~np.isnan(x0.astype(np.float32))].reshape(1, 1, 1, -1)
    x = np.zeros(x0.shape, np.float32)
    out = multistep_update(x, x0, coefficients=[[0.0, 1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(out, x0.astype(np.float32))
    assert np.signbit(out[out != 0]).sum() == (out < 0).sum()


@pytest.mark.parametrize("a_times_x", [True, False])
def test_products_are_rounded_before_they_are_added(a_times_x: bool) -> None:
    """Cases in which a fused multiply-add would leave 2^-75, and the rounded product cancels to 0."""
    x = np.full((1, 1, 1, 64), 1 + 2.0**-23, np.float32)
    fine, one = 1 + 2.0**-52, np.ones_like(x)
    rounded = fine * (1 + 2.0**-23)
    if a_times_x:
        out = multistep_update(x, one, coefficients=[[fine, -rounded, 0, 0]])
    else:
        out = multistep_update(one, x, coefficients=[[-rounded, fine, 0, 0]])
    assert not out.any()


def test_kept_frames_keep_their_bits() -> None:
    o = Operands(SHAPE)
    o.x[0, 0, 1, 0] = [np.nan, np.inf, -0.0, 1e-45]
    out = multistep_update(o.x, o.x0, coefficients=o.shared_rows * [1, 1, 0, 0], keep=np.array([0, 1, 0, 0, 1]))
    assert_same_bits(out[:, :, [1, 4]], o.x[:, :, [1, 4]])
    assert not np.array_equal(out[:, :, 0], o.x[:, :, 0])


def test_prepared_update_reads_its_buffers_anew() -> None:
    o = Operands(SHAPE, shift=1)
    update = MultistepUpdate(
        o.x, o.x0, uncond=o.uncond, guidance=4.0, prev=o.prev, keep=o.keep, shift=1, fill=o.fill, guided_out=o.prev
    )
    for seed in range(3):
        new = Operands(SHAPE, shift=1, seed=seed)
        for name in ("x", "x0", "uncond", "prev", "keep", "fill"):
            getattr(o, name)[...] = getattr(new, name)
        rows = new.rows * [1, 1, 1, 0]
        expected, guided = reference_update(
            o.x, o.x0, uncond=o.uncond, guidance=4.0, prev=o.prev, keep=o.keep, shift=1, fill=o.fill, coefficients=rows
        )
        assert update(rows) is update.out
        assert_same_bits(update.out, expected)
        assert_same_bits(o.prev, guided)


def test_uint16_is_bfloat16_only_where_said() -> None:
    o = Operands(SHAPE, "bfloat16")
    rows = o.shared_rows * [1, 1, 0, 0]
    said = multistep_update(o.x, o.x0, coefficients=rows, dtype="bfloat16")
    assert_same_bits(multistep_update(o.x, o.x0.view(ml_dtypes.bfloat16), coefficients=rows), said)
    with pytest.raises(ValueError, match="x0: expected float32, float16 or bfloat16, got uint16"):
        multistep_update(o.x, o.x0, coefficients=rows)


def refusals() -> list[Any]:
    o = Operands(SHAPE, shift=1)
    buffer = np.zeros((2, 3, 8, 3, 4), np.float32)
    frozen = o.x.copy()
    frozen.flags.writeable = False
    cases: list[tuple[str, dict[str, Any]]] = [
        ("x: expected a numpy array, got list", {"x": [1.0]}),
        (r"x: expected shape \[B, C, T, H, W\], got \[5\]", {"x": np.zeros(5, np.float32)}),
        ("x: expected float32.*got float64", {"x": o.x.astype(np.float64)}),
        ("x: expected float32.*got >f4", {"x": o.x.astype(">f4")}),
        (r"x0: expected float32\[2, 3, 5, 3, 4\], got float32\[2, 3, 5, 3, 3\]", {"x0": o.x0[..., :3]}),
        ("uncond: expected float32.*got float16", {"uncond": o.uncond.astype(np.float16)}),
        ("prev: expected float32.*got float16", {"prev": stored(o.prev, "float16")}),
        ("noise: expected contiguous axes after T", {"noise": o.noise.transpose(0, 1, 2, 4, 3).copy().swapaxes(3, 4)}),
        ("x: expected strides", {"x": o.x[:, :, ::-1]}),
        ("coefficients: expected shape", {"coefficients": o.rows[:, :4]}),
        ("coefficients: expected c = 0", {"coefficients": [[0, 0, 1, 0]] * 5}),
        ("coefficients: expected d = 0", {"coefficients": [[0, 0, 0, 1]] * 5}),
        (r"keep: expected .* \[5\] or \[2, 5\], got bool\[4\]", {"keep": np.zeros(4, bool)}),
        (r"shift: expected 0..5 \(frames\), got 6", {"shift": 6}),
        ("fill: expected float32 latents for the 1 frames", {"shift": 1}),
        (r"fill: expected float32\[2, 3, 2, 3, 4\]", {"shift": 2, "fill": o.fill}),
        ("out: expected a writable array", {"out": frozen}),
        ("out: expected float32", {"out": o.x0.astype(np.float16)}),
        ("out: expected all memory of x or none", {"x": buffer[:, :, :5], "out": buffer[:, :, 3:]}),
        ("out: expected no memory of fill", {"out": buffer[:, :, :5], "shift": 1, "fill": buffer[:, :, 4:5]}),
        ("guided_out: expected no memory of out", {"out": o.x, "guided_out": o.x}),
        ("guided_out: expected all memory of prev", {"prev": buffer[:, :, :5], "guided_out": buffer[:, :, 1:6]}),
    ]
    return [pytest.param(message, change, id=message[:48]) for message, change in cases]


@pytest.mark.parametrize(("message", "change"), refusals())
def test_refusals(message: str, change: dict[str, Any]) -> None:
    o = Operands(SHAPE)
    arguments: dict[str, Any] = {"x": o.x, "x0": o.x0, "coefficients": o.rows * [1, 1, 0, 0]}
    with pytest.raises(ValueError, match=message):
        multistep_update(**arguments | change)


def test_float32_half_buffer_is_not_an_alias() -> None:
    memory = np.zeros(2 * 60, np.float32)
    x0 = memory.view(np.float16)[:60].reshape(1, 1, 1, 60)
    out = memory[:60].reshape(1, 1, 1, 60)
    with pytest.raises(ValueError, match="out: expected all memory of x0"):
        multistep_update(np.zeros_like(out), x0, coefficients=[[1, 1, 0, 0]], out=out)
