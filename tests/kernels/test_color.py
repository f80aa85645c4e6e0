"""rgb_to_yuv420 against BT.709 in float64 and against swscale, compiled and in numpy."""

from __future__ import annotations

from typing import Any

import av
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from worldrt.kernels import rgb_to_yuv420

from .update_reference import as_float64, stored

Array = npt.NDArray[Any]
DTYPES = ["uint8", "float32", "float16", "bfloat16"]

pytestmark = pytest.mark.usefixtures("implementation")


def frames(dtype: str, shape: tuple[int, int, int] = (2, 6, 10), seed: int = 0) -> Array:
    """Random RGB frames, a few values out of range."""
    rng = np.random.default_rng(seed)
    if dtype == "uint8":
        return rng.integers(0, 256, (*shape, 3), np.uint8)
    return stored(rng.uniform(-1.1, 1.1, (*shape, 3)).astype(np.float32), dtype)


def planes(yuv: Array, layout: str) -> tuple[Array, Array, Array]:
    """Y [T, H, W], U and V [T, H / 2, W / 2] of one converted clip."""
    count, rows, _ = yuv.shape
    height = rows * 2 // 3
    chroma = yuv[:, height:].reshape(count, -1)
    if layout == "nv12":
        u, v = chroma[:, 0::2], chroma[:, 1::2]
    else:
        u, v = np.split(chroma, 2, axis=1)
    return yuv[:, :height], u.reshape(count, height // 2, -1), v.reshape(count, height // 2, -1)


def reference(rgb: Array) -> tuple[Array, Array, Array]:
    """The three planes in float64, not rounded: BT.709 on the clamped values, chroma of the mean of 2x2."""
    unit = as_float64(rgb) / 255 if rgb.dtype == np.uint8 else (as_float64(rgb).clip(-1, 1) + 1) / 2

    def luma(p: Array) -> Array:
        return p @ np.array([0.2126, 0.7152, 0.0722])

    count, height, width, _ = unit.shape
    mean = unit.reshape(count, height // 2, 2, width // 2, 2, 3).mean(axis=(2, 4))
    u = 128 + 224 * (mean[..., 2] - luma(mean)) / 1.8556
    v = 128 + 224 * (mean[..., 0] - luma(mean)) / 1.5748
    return 16 + 219 * luma(unit), u, v


@pytest.mark.parametrize("layout", ["i420", "nv12"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rounds_the_formula(dtype: str, layout: Any) -> None:
    rgb = frames(dtype, (2, 34, 130))
    got = planes(rgb_to_yuv420(rgb, layout=layout, dtype=dtype), layout)
    for plane, exact in zip(got, reference(rgb), strict=True):
        assert np.abs(plane - exact).max() <= 0.5 + 1e-4  # float32 arithmetic may only decide a near tie


@pytest.mark.parametrize("layout", ["i420", "nv12"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_strides(dtype: str, layout: Any) -> None:
    rgb = frames(dtype)
    expected = rgb_to_yuv420(rgb, layout=layout, dtype=dtype)
    planar = np.ascontiguousarray(rgb.transpose(3, 0, 1, 2)).transpose(1, 2, 3, 0)
    padded = np.zeros((2, 8, 12, 4), rgb.dtype)[:, 1:7, 1:11, :3]
    padded[...] = rgb
    flipped = rgb[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    for view in (planar, padded, flipped):
        assert not view.flags.c_contiguous
        np.testing.assert_array_equal(rgb_to_yuv420(view, layout=layout, dtype=dtype), expected)


def test_known_colours() -> None:
    """The 8-bit code values of BT.709 for full-scale black, white, red, green and blue."""
    colours = {(0, 0, 0): (16, 128, 128), (255, 255, 255): (235, 128, 128), (255, 0, 0): (63, 102, 240)}
    colours |= {(0, 255, 0): (173, 42, 26), (0, 0, 255): (32, 240, 118)}
    for rgb, yuv in colours.items():
        y, u, v = planes(rgb_to_yuv420(np.full((1, 2, 2, 3), rgb, np.uint8)), "i420")
        assert (y[0, 0, 0], u[0, 0, 0], v[0, 0, 0]) == yuv


def test_out_of_range_values_are_clamped() -> None:
    wild = np.array([np.nan, -np.inf, -7.0, np.inf, 7.0, 1.0], np.float32).reshape(1, 1, 6, 1)
    y, *_ = planes(rgb_to_yuv420(np.broadcast_to(wild, (1, 2, 6, 3))), "i420")
    assert y[0, 0].tolist() == [16, 16, 16, 235, 235, 235]


def test_bfloat16_arrays_and_bits_agree() -> None:
    bits = frames("bfloat16")
    expected = rgb_to_yuv420(bits, dtype="bfloat16")
    np.testing.assert_array_equal(rgb_to_yuv420(bits.view(ml_dtypes.bfloat16)), expected)
    with pytest.raises(ValueError, match="rgb: expected float32, float16, bfloat16 or uint8, got uint16"):
        rgb_to_yuv420(bits)


@pytest.mark.parametrize(("layout", "pixel_format"), [("i420", "yuv420p"), ("nv12", "nv12")])
def test_within_two_of_swscale(layout: Any, pixel_format: str) -> None:
    """A smooth picture: the two disagree on the chroma filter and on dither, not on the matrix, range or layout."""
    y, x = np.mgrid[0:64, 0:96] / 96
    rgb = np.stack([x, y, (1 - x) * (0.3 + y)], axis=-1) * 255
    rgb = rgb.astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format=pixel_format,
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.AREA,
    )
    got = rgb_to_yuv420(rgb[None], layout=layout)[0]
    difference = np.abs(got.astype(int) - frame.to_ndarray().astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.5


@pytest.mark.parametrize(("layout", "pixel_format"), [("i420", "yuv420p"), ("nv12", "nv12")])
def test_video_frame_takes_the_planes_as_they_are(layout: Any, pixel_format: str) -> None:
    """Also where H / 2 is odd, so that a plane of I420 ends in the middle of a row."""
    yuv = rgb_to_yuv420(frames("uint8", (1, 6, 10)), layout=layout)
    frame = av.VideoFrame.from_ndarray(yuv[0], format=pixel_format)
    y, u, v = planes(yuv, layout)
    chroma = [np.stack([u[0], v[0]], axis=-1).reshape(3, 10)] if layout == "nv12" else [u[0], v[0]]
    for plane, expected in zip(frame.planes, [y[0], *chroma], strict=True):
        held = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        np.testing.assert_array_equal(held[:, : expected.shape[1]], expected)


def test_out_is_filled_and_returned() -> None:
    rgb = frames("uint8")
    out = np.empty((2, 9, 10), np.uint8)
    assert rgb_to_yuv420(rgb, out=out) is out
    np.testing.assert_array_equal(out, rgb_to_yuv420(rgb))


@pytest.mark.parametrize(
    ("message", "rgb", "options"),
    [
        ("rgb: expected an even height and width .*, got 5x10", np.zeros((1, 5, 10, 3), np.uint8), {}),
        ("rgb: expected an even height and width .*, got 6x9", np.zeros((1, 6, 9, 3), np.uint8), {}),
        (r"rgb: expected shape \[T, H, W, 3\], got \[3, 6, 10\]", np.zeros((3, 6, 10), np.uint8), {}),
        ("rgb: expected a numpy array", [[0]], {}),
        ("rgb: expected float32, .* got float64", np.zeros((1, 2, 2, 3)), {}),
        ("rgb: expected float16 .dtype='float16'., got uint8", np.zeros((1, 2, 2, 3), np.uint8), {"dtype": "float16"}),
        ("layout: expected i420 or nv12, got 'yuyv'", np.zeros((1, 2, 2, 3), np.uint8), {"layout": "yuyv"}),
        (
            r"out: expected contiguous uint8\[1, 3, 2\], got uint8\[1, 2, 2\]",
            np.zeros((1, 2, 2, 3), np.uint8),
            {"out": np.zeros((1, 2, 2), np.uint8)},
        ),
    ],
)
def test_refusals(message: str, rgb: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        rgb_to_yuv420(rgb, **options)


def test_out_may_not_overlap_rgb() -> None:
    memory = np.zeros(100, np.uint8)
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        rgb_to_yuv420(memory[:12].reshape(1, 2, 2, 3), out=memory[6:12].reshape(1, 3, 2))
