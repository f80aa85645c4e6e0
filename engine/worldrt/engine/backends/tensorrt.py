"""NVIDIA TensorRT: engines that are built on the GPU that they run on."""

from __future__ import annotations

from functools import partial
from typing import Any

from worldrt.engine.backends import _trt
from worldrt.engine.backends._trt_contexts import Contexts
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.plans import Target


def unavailable() -> str | None:
    return _trt.unavailable("tensorrt")


def _target(trt: Any, device: CudaDevice) -> Target:
    return device.target


open_session = partial(_trt.open_session, "tensorrt", _target, Contexts)
