"""NVIDIA TensorRT-RTX: engines that are built for a compute capability, also ahead of time and without a GPU."""

from __future__ import annotations

from functools import partial

from worldrt.engine.backends import _trt
from worldrt.engine.backends._trt_contexts import RtxContexts


def unavailable() -> str | None:
    return _trt.unavailable("tensorrt_rtx")


open_session = partial(_trt.open_session, "tensorrt_rtx", RtxContexts)
