"""Gathers of K and V inside TensorRT's engines, tried against those between them before anything relies on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from worldrt.engine.bundle import Denoiser
from worldrt.engine.errors import BackendError, InputError
from worldrt.engine.plans import Gather
from worldrt.engine.session import Call, Session
from worldrt.engine.weights import WeightStore
from worldrt.runtime.bound import LEVELS
from worldrt.runtime.chain import NEXT
from worldrt.runtime.components import Opener
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.parallel.bound import SharedBound
from worldrt.runtime.parallel.communicators.base import Communicator
from worldrt.runtime.parallel.denoiser import SharedDenoiser
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.pool import Pool

TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
"""How far x0 of one evaluation may be from that with the gathers outside, against the largest value of that."""
_REASONS = {
    "onnxruntime": "ONNX Runtime knows nothing of other processes",
    "tensorrt_rtx": "TensorRT-RTX is made for one GPU",
}
_log = logging.getLogger(__name__)


def check_native(backend: str) -> None:
    """Raises `InputError` for a backend whose graphs cannot gather."""
    if backend != "tensorrt":
        reason = _REASONS.get(backend, f"'{backend}' has no collectives")
        raise InputError(
            f"--cp_mode native: TensorRT alone gathers inside its engines, and {reason}; say --backend tensorrt, or "
            "leave --cp_mode out"
        )


class NativeDenoiser(SharedDenoiser):
    """As of the base, with gathers inside of engines where these prove to be right."""

    def __init__(self, opener: Opener, spec: Denoiser, ranks: Ranks) -> None:
        check_native(opener.execution.backend)
        super().__init__(opener, spec, ranks)
        self._opener = opener
        self._gathering: dict[tuple[int, ...], Mapping[str, Session] | None] = {}  # engines; None where they failed
        self._inside = False  # whether these are being bound

    def unload(self) -> None:
        super().unload()
        self._gathering = {}

    def _bind(self, shape: DenoiserShape, guided: bool, alone: bool) -> SharedBound:
        bound = super()._bind(shape, guided, alone)
        if self._context is None:
            return bound
        return self._bind_inside(bound, lambda: super(NativeDenoiser, self)._bind(shape, guided, alone), self._context)

    def _bind_inside(self, outside: SharedBound, bind: Callable[[], SharedBound], context: Communicator) -> SharedBound:
        """The same with gathers inside of engines, if on all ranks one evaluation of these gives the same; tried once
        for the ranks of a `context`, and not where these have different numbers of frames."""
        share, members, made = self._share, context.members, list[SharedBound]()
        if share.pieces % share.parts or self._gathering.get(members, ()) is None:
            return outside

        def opened() -> None:
            store = self._opener.weights(self.spec)
            self._gathering[members] = open_gathering(self._opener, self.spec, store, self._gathered, context)

        def bound() -> None:
            outer, self._inside = self.sessions, True
            self.sessions = {**outer, **(self._gathering[members] or {})}
            try:
                made.append(bind())
            finally:
                self.sessions, self._inside = outer, False

        known = members in self._gathering
        problem = (None if known else self._agreed(opened)) or self._agreed(bound)
        if problem is None and not known:
            problem = self._agreed(lambda: problem_of(outside, made[0], self.spec.precision))
        if problem is None:
            return made[0]
        self._gathering[members] = None
        _log.warning("--cp_mode native: %s; K and V are gathered between engines", problem)
        outside.fill_rows()
        return outside

    def _agreed(self, work: Callable[[], str | None]) -> str | None:
        """The first problem that a rank has with what all do now, by its own words or because it fails."""
        try:
            problem = work()
        except BackendError as error:
            problem = str(error)
        found = enumerate(self._ranks.control.collect(problem))
        return next((f"rank {rank}: {text}" for rank, text in found if text is not None), None)

    def _call(self, pool: Pool, name: str, roles: Mapping[str, str], instance: int = 0) -> Call:
        call = self._call_alone if self._inside else super()._call
        return call(pool, name, roles, instance)


def open_gathering(
    opener: Opener, spec: Denoiser, store: WeightStore, names: tuple[str, ...], context: Communicator
) -> Mapping[str, Session]:
    """Sessions of the graphs that make `names`, which give those of all ranks. Raises `BackendError` where the
    library or the communicator is not for that, or the weights of blocks are constants of engines."""
    if context.pointer is None:
        raise BackendError(f"{type(context).__name__} has no communicator for engines: pip install nccl4py")
    if not opener.takes_weights(spec, store):
        raise BackendError("each block has an engine of its own; say --block_weights inputs")
    made = {}
    for name, graph in spec.graphs.items():
        outputs = tuple(o.name for o in graph.outputs if o.name.removeprefix(NEXT) in names)
        if outputs:
            gather = Gather(context.size, outputs)
            first = spec.instances(name)[0]
            made[name if not first else f"{name} {first}"] = opener.session(
                spec, name, store, first, (gather, context.pointer)
            )
    return made


def problem_of(outside: SharedBound, inside: SharedBound, precision: str) -> str | None:
    """What one evaluation of noise says against gathers inside of engines, or None. Inputs are other ones after it."""
    made = []
    for bound in (outside, inside):
        _fill(bound)
        bound.run()
        made.append(bound.device.download(bound.cond).astype(np.float64))
    largest, difference = np.abs(made[0]).max(), np.abs(made[1] - made[0]).max()
    if difference <= TOLERANCES[precision] * largest:  # not so for what is no number
        return None
    return f"x0 differs by {difference:.3g} at a largest value of {largest:.3g}"


def _fill(bound: SharedBound) -> None:
    """Seeded noise at level 1. Every rank has the same, which is as good as any, and must be so of what all share."""
    for name, target in {name: bound.inputs[name] for name in bound.specs if name in bound.inputs}.items():
        if target.dtype != "float32":
            continue
        values = np.random.default_rng(0).standard_normal(target.shape, np.float32)
        if name in LEVELS:
            values[...] = 1
        elif name == "position":
            values = np.arange(target.shape[0], dtype=np.float32)
        elif name == "mask":
            values[...] = 0
        bound.device.upload(target, values)
    for text in bound.texts:
        bound.device.upload(text, np.random.default_rng(0).standard_normal(text.shape, np.float32))
    bound.fill_rows()
