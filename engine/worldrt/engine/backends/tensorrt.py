"""NVIDIA TensorRT: engines that are built on the GPU that they run on."""

from __future__ import annotations

from functools import partial

from worldrt.engine.backends import _trt
from worldrt.engine.backends._trt_contexts import Contexts


def unavailable() -> str | None:
    return _trt.unavailable("tensorrt")


open_session = partial(_trt.open_session, "tensorrt", Contexts)
