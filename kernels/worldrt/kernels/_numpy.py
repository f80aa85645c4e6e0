"""The ops in numpy, for machines without the compiled library: slower, the same bits.

The arguments are already checked. Each function returns the code that the C function returns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def _values(array: Array) -> Array:
    """The numbers of an array that may hold bfloat16, as such or as uint16 bits; a bfloat16 becomes float32."""
    if array.dtype in (np.float32, np.float16, np.uint8):
        return array
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def multistep_update(
    x: Array,
    x0: Array,
    uncond: Array | None,
    guidance: float,
    prev: Array | None,
    noise: Array | None,
    coefficients: Array,
    keep: Array | None,
    shift: int,
    fill: Array | None,
    out: Array,
    guided_out: Array | None,
) -> int:
    """`worldrt.kernels.multistep_update`; frame by frame upwards, so that an output may be an operand."""
    if prev is None and coefficients[:, shift:, 2].any():
        return -2
    if noise is None and coefficients[:, shift:, 3].any():
        return -3
    batch, _, frames = x.shape[:3]
    per_batch = (batch, 4) + (1,) * (x.ndim - 2)
    with np.errstate(all="ignore"):
        for t in range(shift, frames):
            a, b, c, d = np.moveaxis(coefficients[:, t].reshape(per_batch), 1, 0)
            g = _values(x0[:, :, t]).astype(np.float64)
            if uncond is not None:
                g = g + guidance * (g - _values(uncond[:, :, t]).astype(np.float64))
            y = a * x[:, :, t].astype(np.float64) + b * g
            if prev is not None:
                y = y + c * prev[:, :, t].astype(np.float64)
            if noise is not None:
                y = y + d * noise[:, :, t].astype(np.float64)
            stepped = y.astype(np.float32)
            if keep is not None:
                kept = np.broadcast_to(keep, (batch, frames))[:, t] != 0
                stepped[kept] = x[kept, :, t]
            out[:, :, t - shift] = stepped
            if guided_out is not None:
                guided_out[:, :, t - shift] = g.astype(np.float32)
    if shift:
        out[:, :, frames - shift :] = fill
        if guided_out is not None:
            guided_out[:, :, frames - shift :] = 0.0
    return 0


def rgb_to_yuv420(rgb: Array, layout: str, out: Array) -> int:
    """`worldrt.kernels.rgb_to_yuv420`."""
    low, high = (0.0, 255.0) if rgb.dtype == np.uint8 else (-1.0, 1.0)
    kr, kb = 0.2126, 0.0722
    kg = 1.0 - kr - kb
    b_range, r_range = 2.0 * (1.0 - kb), 2.0 * (1.0 - kr)
    matrix = {
        "y": (kr, kg, kb, 219.0, 16.0),
        "u": (-kr / b_range, -kg / b_range, 0.5, 224.0, 128.0),
        "v": (0.5, -kg / r_range, -kb / r_range, 224.0, 128.0),
    }

    def component(name: str, pixels_HWC: Array) -> Array:
        r, g, b, excursion, zero = matrix[name]
        scale = excursion / (high - low)
        weights = np.array([scale * r, scale * g, scale * b, zero - scale * low * ((r + g) + b)], np.float32)
        red, green, blue = np.moveaxis(pixels_HWC, -1, 0)
        value = ((weights[0] * red + weights[1] * green) + weights[2] * blue) + weights[3]
        plane: Array = (value + np.float32(0.5)).astype(np.uint8)
        return plane

    _, height, width, _ = rgb.shape
    for frame, planes in zip(rgb, out, strict=True):
        pixels = np.fmin(np.fmax(_values(frame).astype(np.float32), np.float32(low)), np.float32(high))
        planes[:height] = component("y", pixels)
        top, bottom = pixels[0::2], pixels[1::2]
        mean = ((top[:, 0::2] + top[:, 1::2]) + (bottom[:, 0::2] + bottom[:, 1::2])) * np.float32(0.25)
        u, v = component("u", mean), component("v", mean)
        chroma = np.stack((u, v), axis=-1) if layout == "nv12" else np.stack((u, v))
        planes[height:] = chroma.reshape(height // 2, width)
    return 0


def counter_normal(out: Array, counters: Array, first: Array | None, scales: Array | None, seed: int) -> int:
    """`worldrt.kernels.counter_normal`, row by row, in the same order of operations."""
    values = out.reshape(len(out), -1)
    count = values.shape[1]
    half = -(-count // 2)
    ahead = 0 if first is None else int(first[0])
    for index, (use, level, frame, at) in enumerate(counters.tolist()):
        if use < 0:
            continue
        block = np.array([0, level % 2**64, (frame + ahead) % 2**64, at % 2**64], np.uint64)
        words = np.random.Philox(counter=block, key=np.array([seed, use], np.uint64)).random_raw(half)
        radius = np.sqrt(_squared_radius(words >> np.uint64(32)))
        cosine, sine = _on_circle(words & np.uint64(0xFFFFFFFF))
        scale = np.float32(1 if scales is None else scales[index])
        values[index, :half] = (radius * cosine).astype(np.float32) * scale
        values[index, half:] = ((radius * sine).astype(np.float32) * scale)[: count - half]
    return 0


def _squared_radius(n: Array) -> Array:
    """-2 ln((n + 0.5) / 2^32) in float64, as csrc/counter_normal.h has it."""
    bits = (n.astype(np.float64) + 0.5).view(np.int64)
    k = (bits - 0x3FE6A09E667F3BCD + (1 << 52)) >> 52
    m = (bits - (k << 52) + (1 << 52)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    total = _series((1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0), s * s)
    found: Array = ((k - 33).astype(np.float64) * 0.6931471805599453 + s * (2.0 * total)) * -2.0
    return found


def _on_circle(n: Array) -> tuple[Array, Array]:
    """Cosine and sine of 2 pi (n + 0.5) / 2^32 in float64, as csrc/counter_normal.h has them."""
    quarter = (n + np.uint64(1 << 29)) >> np.uint64(30)
    left = (n.astype(np.float64) + 0.5) - (quarter << np.uint64(30)).astype(np.float64)
    a = left * 1.4629180792671596e-09
    z = a * a
    odd = (1 / 6227020800, -1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0)
    even = (1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -0.5, 1.0)
    sine, cosine = _series(odd, z) * a, _series(even, z)
    turned = (quarter & np.uint64(1)).astype(bool)
    cosine, sine = np.where(turned, sine, cosine), np.where(turned, cosine, sine)
    cosine[(quarter + np.uint64(1)) & np.uint64(2) != 0] *= -1
    sine[quarter & np.uint64(2) != 0] *= -1
    return cosine, sine


def _series(factors: tuple[float, ...], z: Array) -> Array:
    """A polynomial, the highest power first."""
    total = np.full_like(z, factors[0])
    for factor in factors[1:]:
        total *= z
        total += factor
    return total
