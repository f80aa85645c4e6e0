"""Collectives inside engines: what some GPUs make, gathered by the engine itself, over NCCL.

TensorRT has them from 10.16 on, out of preview from 11.0. Everything is looked up by name in the module that is handed
in. Known of it: an engine whose compiler takes a collective into a kernel of its own may leave it out without a word
(pytorch/TensorRT#4381), so whoever uses these compares what comes out with a gather of their own.
"""

from __future__ import annotations

import ctypes
from typing import Any

from worldrt.engine.errors import UnsupportedError
from worldrt.engine.plans import BuildJob

PREVIEW = "MULTIDEVICE_RUNTIME_10_16"
_CAPSULE = b"ncclComm_t"


def add_gathers(trt: Any, network: Any, job: BuildJob) -> None:
    """Have a network gather the outputs that a job names: they keep their names, and become those of all GPUs, one
    after another along the first dimension. Raises `UnsupportedError` where the library cannot."""
    if job.gather is None:
        return
    add, operations = getattr(network, "add_dist_collective", None), getattr(trt, "CollectiveOperation", None)
    if add is None or operations is None:
        raise UnsupportedError(_lacks(trt, job, "it has none before 10.16"))
    outputs = {tensor.name: tensor for tensor in (network.get_output(i) for i in range(network.num_outputs))}
    for name in job.gather.outputs:
        own = outputs[name]
        layer = add(own, operations.ALL_GATHER, trt.ReduceOperation.NONE, -1, [])
        if layer is None:
            raise UnsupportedError(_lacks(trt, job, f"it refuses to gather '{name}'"))
        layer.num_ranks = job.gather.ranks  # before its output is asked for: the shape of that follows
        every = layer.get_output(0)
        network.unmark_output(own)
        own.name = f"own {name}"
        every.name = name
        network.mark_output(every)


def allow_gathers(trt: Any, config: Any, job: BuildJob) -> None:
    """Switch on what was a preview in the version that had it first."""
    preview = getattr(getattr(trt, "PreviewFeature", None), PREVIEW, None)
    if job.gather is not None and preview is not None:
        config.set_preview_feature(preview, True)


def connect(context: Any, communicator: int) -> bool:
    """Give an execution context the NCCL communicator at an address. All its ranks do so together. False where the
    library refuses."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return bool(context.set_communicator(make(communicator, _CAPSULE, None)))


def _lacks(trt: Any, job: BuildJob, why: str) -> str:
    return f"{job.name}: {job.library} {trt.__version__} has no collectives inside engines: {why}; leave --cp_mode out"
