"""A denoiser whose ranks exchange frames for heads around attention, which is a graph of its own."""

from __future__ import annotations

from collections.abc import Mapping

from worldrt.engine.session import Call
from worldrt.engine.tensors import TensorSpec
from worldrt.runtime.chain import ATTEND, heads_of
from worldrt.runtime.parallel.denoiser import SharedDenoiser, then
from worldrt.runtime.parallel.share import CONTEXT, FRAMES
from worldrt.runtime.parallel.ulysses import HeadExchange
from worldrt.runtime.pool import Pool


class HeadsDenoiser(SharedDenoiser):
    """As of the base, but for attention, which sees all frames in some heads."""

    def _call(self, pool: Pool, name: str, roles: Mapping[str, str], instance: int = 0) -> Call:
        if self._context is None:
            return super()._call(pool, name, roles, instance)
        heads = HeadExchange(self._share, self._context, heads_of(self.spec))
        if name == ATTEND:
            return self._attend(pool, heads)
        inputs = self.spec.graphs[ATTEND].inputs
        sent = self._made(name, [spec.name for spec in inputs if spec.shape[0] in (FRAMES, CONTEXT)])
        return self._to_heads(pool, heads, self._call_alone(pool, name, roles, instance), sent)

    def _to_heads(self, pool: Pool, heads: HeadExchange, call: Call, made: list[TensorSpec]) -> Call:
        """A call, and the exchange behind it that `attend` needs of what it has made."""
        given = {spec.name: spec for spec in self.spec.graphs[ATTEND].inputs}
        some = self._some(pool, heads)
        pairs = [(some.take(f"every {spec.name}", given[spec.name]), call[spec.name]) for spec in made]
        return Call(call.buffers, then(call.run, [heads.to_heads(pairs)])) if made else call

    def _attend(self, pool: Pool, heads: HeadExchange) -> Call:
        """`attend` to all frames in some heads, and the exchange behind it."""
        graph, some = self.spec.graphs[ATTEND], self._some(pool, heads)
        specs = (*graph.inputs, *graph.outputs)
        whole = {spec.name: pool.take(spec.name, spec) for spec in specs}
        of_frames = {spec.name for spec in specs if spec.shape[0] in (FRAMES, CONTEXT)}
        buffers = {
            s.name: some.take(f"every {s.name}", s) if s.name in of_frames else heads.own(whole[s.name]) for s in specs
        }
        for spec in graph.outputs:
            if spec.name not in of_frames:
                buffers[spec.name] = some.take(f"some {spec.name}", spec)
        call = self.sessions[ATTEND].bind(some.axes, buffers)
        results = [spec.name for spec in graph.outputs]
        back = heads.to_frames([(call[name], whole[name]) for name in results if name in of_frames])
        gathers = [heads.context.all_gather(whole[name], call[name]) for name in results if name not in of_frames]
        return Call(call.buffers, then(call.run, [back, *gathers]))

    def _some(self, pool: Pool, heads: HeadExchange) -> Pool:
        return pool.front({**pool.axes, FRAMES: heads.share.pieces, "heads": heads.each})
