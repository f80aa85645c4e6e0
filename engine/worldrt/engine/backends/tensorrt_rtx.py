"""NVIDIA TensorRT-RTX: engines that are built for a compute capability, also ahead of time and without a GPU."""

from __future__ import annotations

from functools import partial
from typing import Any

from worldrt.engine.backends import _trt
from worldrt.engine.backends._trt_contexts import RtxContexts
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.plans import Target


def unavailable() -> str | None:
    return _trt.unavailable("tensorrt_rtx")


def _target(trt: Any, device: CudaDevice) -> Target:
    """The compute capability alone, so that a plan built elsewhere is found; where the library can only build for the
    present GPU (Hopper, B200), that one."""
    (capability,) = device.target.compute_capabilities
    ahead = hasattr(trt.ComputeCapability, "SM" + capability.replace(".", ""))
    return Target((capability,)) if ahead else device.target


open_session = partial(_trt.open_session, "tensorrt_rtx", _target, RtxContexts)
