"""The CUDA entry points: what can be checked without a device, and equality with the CPU kernels on one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worldrt.kernels import _library, cuda, multistep_update, rgb_to_yuv420, status

from .test_color import frames
from .update_reference import Operands, assert_same_bits

SHAPE = (2, 3, 5, 3, 4)


class Described:
    """An array interface over memory that nobody reads."""

    def __init__(self, shape: tuple[int, ...], typestr: str, strides: tuple[int, ...] | None = None) -> None:
        data = (0x10000, False)
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": data, "strides": strides}


def needs_library() -> None:
    library, reason = _library.load("cuda")
    if library is None:
        pytest.skip(f"CUDA kernels: {reason}")


def test_library_loads_without_a_driver() -> None:
    needs_library()
    state = status()
    assert state.cuda_library and state.cuda_library.exists()
    assert state.devices > 0 or any(note.startswith("CUDA kernels: no device") for note in state.notes)


def test_a_failed_launch_is_an_error_with_the_reason() -> None:
    needs_library()
    if status().devices:
        pytest.skip("a device would run the kernel on addresses that are not memory")
    a = [(0x100000 * (i + 1), SHAPE, "float32") for i in range(3)]
    rows = (0x10000, (5, 4), "float64")
    with pytest.raises(RuntimeError, match=r"multistep_update: the CUDA launch failed: .+ \(CUDA error \d+\)"):
        cuda.multistep_update(a[0], a[1], coefficients=rows, out=a[2])
    with pytest.raises(RuntimeError, match="rgb_to_yuv420: the CUDA launch failed"):
        cuda.rgb_to_yuv420((0x10000, (1, 2, 2, 3), "uint8"), out=(0x20000, (1, 3, 2), "uint8"))


def test_a_missing_library_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "load", lambda kind: (None, "not built"))
    with pytest.raises(RuntimeError, match="CUDA kernels: not built"):
        cuda.rgb_to_yuv420((0x10000, (1, 2, 2, 3), "uint8"), out=(0x20000, (1, 3, 2), "uint8"))


def test_array_interfaces_are_understood() -> None:
    read = cuda._view
    assert read("x", Described((2, 3), "<V2")) == (0x10000, 0x1000C, (2, 3), "bfloat16", None)
    assert read("x", Described((2, 3), "<f4", (12, 4))) == (0x10000, 0x10018, (2, 3), "float32", None)
    assert read("x", Described((2, 3), "<f4", (24, 4))) == (0x10000, 0x10024, (2, 3), "float32", (24, 4))
    assert read("x", Described((4,), "<u2"), "bfloat16") == (0x10000, 0x10008, (4,), "bfloat16", None)
    with pytest.raises(ValueError, match="x: expected __cuda_array_interface__ .* got ndarray"):
        read("x", np.zeros(3))
    with pytest.raises(ValueError, match="x: expected one of float32, .* got <c8"):
        read("x", Described((4,), "<c8"))


def test_device_arguments_meet_the_same_checks() -> None:
    x, x0 = Described(SHAPE, "<f4"), Described((2, 3, 5, 3, 3), "<f2")
    rows = (0x10000, (5, 4), "float64")
    with pytest.raises(ValueError, match=r"x0: expected float16\[2, 3, 5, 3, 4\], got float16\[2, 3, 5, 3, 3\]"):
        cuda.multistep_update(x, x0, coefficients=rows, out=x)
    with pytest.raises(ValueError, match="coefficients: expected contiguous float64"):
        cuda.multistep_update(x, x, coefficients=(0x10000, (5, 4), "float32"), out=x)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shift", [0, 2])
def test_update_equals_the_cpu_kernel(dtype: str, shift: int) -> None:
    torch = device_torch()
    o = Operands((2, 3, 5, 33, 40), dtype, shift)
    names = ("uncond", "prev", "noise", "keep", "fill")
    case: dict[str, Any] = {name: getattr(o, name) for name in names}
    on_device = {name: on_cuda(torch, value, dtype) for name, value in case.items()}
    rows, x0 = torch.from_numpy(o.rows).cuda(), on_cuda(torch, o.x0, dtype)
    in_place, apart = on_cuda(torch, o.x, "float32"), torch.empty(o.x.shape, device="cuda")
    fixed: dict[str, Any] = {"guidance": 6.5, "shift": shift, "dtype": dtype}
    guided = np.empty_like(o.x)
    expected = multistep_update(o.x, o.x0, coefficients=o.rows, **case, **fixed, guided_out=guided)
    stream = torch.cuda.current_stream().cuda_stream
    x = in_place.clone()
    cuda.multistep_update(x, x0, coefficients=rows, **on_device, **fixed, out=apart, stream=stream)
    guided_out = on_device["prev"]
    cuda.multistep_update(
        in_place, x0, coefficients=rows, **on_device, **fixed, out=in_place, guided_out=guided_out, stream=stream
    )
    assert_same_bits(apart.cpu().numpy(), expected)
    assert_same_bits(in_place.cpu().numpy(), expected)
    assert_same_bits(guided_out.cpu().numpy(), guided)


@pytest.mark.gpu
def test_captured_update_reads_new_coefficients() -> None:
    torch = device_torch()
    o = Operands(SHAPE)
    x, x0 = on_cuda(torch, o.x, "float32"), on_cuda(torch, o.x0, "float32")
    rows, out = torch.zeros(5, 4, dtype=torch.float64, device="cuda"), torch.empty_like(x)
    cuda.multistep_update(x, x0, coefficients=rows, out=out, stream=torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        cuda.multistep_update(x, x0, coefficients=rows, out=out, stream=stream)
    for seed in range(2):
        new = Operands(SHAPE, seed=seed).shared_rows * [1, 1, 0, 0]
        rows.copy_(torch.from_numpy(new))
        graph.replay()
        assert_same_bits(out.cpu().numpy(), multistep_update(o.x, o.x0, coefficients=new))


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["i420", "nv12"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
def test_colour_equals_the_cpu_kernel(dtype: str, layout: Any) -> None:
    torch = device_torch()
    rgb = frames(dtype, (3, 66, 130))
    packed = on_cuda(torch, rgb, dtype)
    planar = packed.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    expected = rgb_to_yuv420(rgb, layout=layout, dtype=dtype)
    for view in (packed, planar):
        out = torch.empty(expected.shape, dtype=torch.uint8, device="cuda")
        cuda.rgb_to_yuv420(view, layout=layout, out=out, stream=torch.cuda.current_stream().cuda_stream)
        np.testing.assert_array_equal(out.cpu().numpy(), expected)


def device_torch() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    needs_library()
    return torch


def on_cuda(torch: Any, array: Any, dtype: str) -> Any:
    """A tensor with these values; uint16 holds the bits of bfloat16."""
    if array.dtype == np.uint16 and dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).cuda().view(torch.bfloat16)
    return torch.from_numpy(array).cuda()
