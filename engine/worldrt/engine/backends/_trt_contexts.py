"""Execution contexts without memory of their own, and what TensorRT-RTX keeps of its compilation at run time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from worldrt.engine.backends._trt_load import Engine
from worldrt.engine.errors import WorldrtError
from worldrt.engine.files import staged_file

_log = logging.getLogger("worldrt.tensorrt")


class Contexts:
    """Makes the contexts of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._trt = engine.engine, engine.trt

    def make(self) -> Any:
        """A context, or None where the library refuses."""
        return self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def ran(self) -> None:
        """A context has been run for the first time."""

    def refusal(self, contexts: Iterable[Any], stream: int) -> str | None:
        """Why runs of these contexts cannot be captured, or None."""
        return None


class RtxContexts(Contexts):
    """Kernels are compiled on the GPU, for the shapes of a context, when it is first used; what was compiled is kept in
    a file beside the plan. CUDA graphs are ours."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        trt = self._trt
        self._place = engine.plan.path.with_suffix(".jit")
        self._config = self._engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        # at once and not behind our back: a captured step would keep the slow kernels that stand in until then
        self._config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._compiled = self._config.create_runtime_cache()
        self._nbytes = self._read()
        self._config.set_runtime_cache(self._compiled)

    def make(self) -> Any:
        return self._engine.create_execution_context(self._config)

    def ran(self) -> None:
        """Keep what was compiled, where that is more than the file holds; a failure costs only time later."""
        content = bytes(self._compiled.serialize())
        if len(content) > self._nbytes:
            with suppress(WorldrtError, OSError), staged_file(self._place, overwrite=True) as part:
                part.write_bytes(content)
                os.chmod(part, 0o600)
                self._nbytes = len(content)

    def refusal(self, contexts: Iterable[Any], stream: int) -> str | None:
        if all(context.is_stream_capturable(stream) for context in contexts):
            return None
        return "TensorRT-RTX says that a context cannot be captured"

    def _read(self) -> int:
        """Take a former run's file, unless it is of another GPU, driver or version; its size, or 0."""
        try:
            content = _trusted(self._place)
        except OSError:
            return 0
        if self._compiled.deserialize(content):
            return len(content)
        _log.info("%s: not of this GPU, driver and library; it is made again", self._place)
        return 0


def _trusted(path: Path) -> bytes:
    """A file's bytes; it holds code for the GPU, so it must be ours. Raises `OSError`."""
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user")
    return path.read_bytes()
