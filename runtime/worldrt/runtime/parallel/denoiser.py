"""A denoiser of which every rank runs a part: one text of guidance, and some of the frames.

The frames of a rank look at those of all ranks. In block form keys and values cross the cut between two blocks with the
frames first: there the ranks of a group gather them, one contiguous collective for each block (`heads` and `native` are
other ways). All else is of single frames: each rank keeps to its own, in the graphs and in the sampler, until the end.

Where there are fewer frames than ranks, a frame is cut into pieces of some rows. To the graphs these are frames that
say where their rows begin; attention does not ask in which order it reads what it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace

from worldrt.engine.bundle import Denoiser
from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import BundleError
from worldrt.engine.session import Call
from worldrt.engine.tensors import TensorSpec
from worldrt.runtime.bound import ROW, BoundDenoiser
from worldrt.runtime.chain import ATTEND, NEXT
from worldrt.runtime.components import Opener
from worldrt.runtime.denoise import DenoiserModel, DenoiserShape, _refusal
from worldrt.runtime.parallel.bound import SharedBound
from worldrt.runtime.parallel.checks import check_shared
from worldrt.runtime.parallel.communicators.base import Communicator
from worldrt.runtime.parallel.graphs import AgreedGraphs
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.share import (
    CONTEXT,
    CONTEXT_VIEWS,
    FRAMES,
    VIEWS,
    WINDOW_FRAMES,
    Share,
    cuts_of,
)
from worldrt.runtime.pool import Pool


class SharedDenoiser(DenoiserModel):
    """`bind` is called by all ranks with the same shape, that of the whole clips."""

    def __init__(self, opener: Opener, spec: Denoiser, ranks: Ranks) -> None:
        super().__init__(opener, spec)
        self._ranks = ranks
        gathered_of(spec)
        self._share: Share = Share(0, 1, 1)  # of what is being bound
        self._gathered: tuple[str, ...] = ()
        self._context: Communicator | None = None

    def _bind(self, shape: DenoiserShape, guided: bool, alone: bool) -> SharedBound:
        ranks, mesh = self._ranks, self._ranks.mesh(guided=guided)
        check_shared(self.spec, ranks, shape.frames, guided=guided)
        ranks.open(self.device)
        axis = self._axis(shape, mesh.context)
        total = (axis == VIEWS and shape.views) or shape.frames
        share = replace(ranks.share(total, guided=guided, whole=self.spec.form == "whole"), axis=axis)
        self._gathered = gathered_of(self.spec, CONTEXT_VIEWS if axis == VIEWS else CONTEXT)
        rows = self._rows(shape)
        if any(spec.name == ROW for spec in self.inputs):
            share = replace(share, cuts=cuts_of(share.total, share.parts, rows))
        self._share = share
        self._context = ranks.among(mesh.context_members(ranks.rank)) if share.parts > 1 else None
        split = guided and mesh.cfg > 1
        own = replace(shape, frames=share.count, height=shape.height // share.cuts)
        if axis == VIEWS:
            own = replace(shape, views=share.count)
        bound = super()._bind(own, guided and not split, alone and not split)
        if split:
            bound = self._paired(bound, ranks.among(mesh.pair_members(ranks.rank)))
        specs = {spec.name: spec for graph in self.spec.graphs.values() for spec in graph.inputs}
        if isinstance(self.device, CudaDevice):
            sessions = tuple(self.sessions.values())
            bound = replace(bound, graphs=self._graphs(self.device, lambda: _refusal(sessions)))
        known = {field.name: getattr(bound, field.name) for field in fields(BoundDenoiser)}
        made = SharedBound(**known, ranks=ranks, share=share, specs=specs, context=self._context, rows=rows)
        made.fill_rows()
        return made

    def _axis(self, shape: DenoiserShape, parts: int) -> str:
        """What `parts` ranks share: the views of a model that can be cut between them, where they come out even, else
        frames."""
        if self._ranks.axis is not None or not gathered_of(self.spec, CONTEXT_VIEWS):
            return self._ranks.axis or FRAMES
        even = shape.views is not None and shape.views % parts == 0
        return VIEWS if even and self._ranks.mode == "gather" else FRAMES

    def _graphs(self, device: CudaDevice, refusal: Callable[[], str | None]) -> AgreedGraphs:
        """Steps with their collectives are captured by all ranks or by none."""
        used = self._ranks.communicators

        def reason() -> str | None:
            fixed = next((type(c).__name__ for c in used if not c.captured), None)
            return f"{fixed} cannot be captured" if fixed else refusal()

        return AgreedGraphs(device, self._ranks.control, mode=self._mode, refusal=reason)

    def _paired(self, bound: BoundDenoiser, pair: Communicator) -> BoundDenoiser:
        """The prediction of this rank's text, and that of the other one from the rank that has it."""
        both = self.device.empty((2 * bound.cond.shape[0], *bound.cond.shape[1:]), bound.cond.dtype)
        calls = (*bound.calls, Call({}, pair.all_gather(both, bound.cond)))
        half = both.shape[0] // 2
        return replace(bound, calls=calls, alone=calls, cond=both[0:half], uncond=both[half : 2 * half])

    def _axes(self, shape: DenoiserShape, branches: int) -> dict[str, int]:
        share, axes = self._share, super()._axes(shape, branches)
        if share.axis == VIEWS:
            return axes | {CONTEXT_VIEWS: share.pieces}
        return axes | {CONTEXT: share.pieces, WINDOW_FRAMES: share.total}

    def _call(self, pool: Pool, name: str, roles: Mapping[str, str], instance: int = 0) -> Call:
        if self._context is None:
            return super()._call(pool, name, roles, instance)
        made = self._made(name, self._gathered)
        gathers = [self._gather(pool, self._context, output) for output in made]
        seen = {kv: f"every {kv}" for kv in self._gathered}
        own = {output.name: f"own {output.name.removeprefix(NEXT)}" for output in made}
        call = super()._call(pool, name, {**roles, **seen, **own}, instance)
        return Call(call.buffers, then(call.run, gathers)) if gathers else call

    def _call_alone(self, pool: Pool, name: str, roles: Mapping[str, str], instance: int) -> Call:
        """A call without anything behind it."""
        return super()._call(pool, name, roles, instance)

    def _made(self, name: str, wanted: Iterable[str]) -> list[TensorSpec]:
        return [o for o in self.spec.graphs[name].outputs if o.name.removeprefix(NEXT) in wanted]

    def _gather(self, pool: Pool, context: Communicator, output: TensorSpec) -> Callable[[], None]:
        """What gives all ranks what each has made; buffers are padded so that all send as much."""
        kv, share = output.name.removeprefix(NEXT), self._share
        own, every = (
            pool.take(f"{role} {kv}", replace(output, shape=(frames, *output.shape[1:])))
            for role, frames in (("own", share.each), ("every", share.each * share.parts))
        )
        return context.all_gather(every, own)


def gathered_of(spec: Denoiser, context: str = CONTEXT) -> tuple[str, ...]:
    """What blocks take of all frames, or of the views that `context` is the axis of, and make of their own, by name:
    the frames or views come first. Raises `BundleError` for a denoiser whose frames cannot be shared so."""
    made = {o.name.removeprefix(NEXT) for graph in spec.graphs.values() for o in graph.outputs}
    looking = (ATTEND,) if ATTEND in spec.graphs else (*spec.block_graphs(), *({"head"} & set(spec.graphs)))
    names = {i.name: i for n in looking for i in spec.graphs[n].inputs if context in i.shape}
    found = tuple(name for name in names if name in made and names[name].shape[0] == context)
    if spec.form == "block" and spec.blocks > 1 and not found and context == CONTEXT:
        raise BundleError("a denoiser in blocks that take nothing of other frames; export the bundle again")
    return found


def then(run: Callable[[], None], after: list[Callable[[], None]]) -> Callable[[], None]:
    if len(after) == 1:
        (gather,) = after

        def both() -> None:
            run()
            gather()

        return both

    def every() -> None:
        run()
        for call in after:
            call()

    return every
