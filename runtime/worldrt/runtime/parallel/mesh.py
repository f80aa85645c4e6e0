"""How the ranks of a run share the work: the two texts of guidance between halves, the frames of a clip within each."""

from __future__ import annotations

from dataclasses import dataclass

from worldrt.engine.errors import InputError

BRANCHES = 2


@dataclass(frozen=True)
class Mesh:
    """`cfg` (1 or 2) groups of `context` ranks. Group 0 evaluates the prompt, group 1 the other text; the ranks of a
    group share the frames. Rank = group * context + part."""

    cfg: int
    context: int

    def place(self, rank: int) -> tuple[int, int]:
        """Group and part of a rank."""
        return divmod(rank, self.context)

    def context_members(self, rank: int) -> tuple[int, ...]:
        """The ranks that share frames with one."""
        first = rank - rank % self.context
        return tuple(range(first, first + self.context))

    def pair_members(self, rank: int) -> tuple[int, ...]:
        """The ranks that have the same frames, in the order of their groups."""
        return tuple(range(rank % self.context, self.cfg * self.context, self.context))


def mesh(size: int, *, guided: bool, cfg: int | None = None, context: int | None = None) -> Mesh:
    """Of `size` ranks. Guidance is split first, where there is some and the ranks can be halved: two texts have nothing
    to say to each other until the end of a step. `cfg` and `context` are given numbers; without guidance all ranks
    share the frames, whatever they are."""
    if not guided:
        return Mesh(1, size)
    if cfg is None and context is not None:
        cfg = size // context
    if cfg is None:
        cfg = BRANCHES if size % BRANCHES == 0 else 1
    return Mesh(cfg, size // cfg)


def check(size: int, cfg: int | None, context: int | None) -> None:
    """Raises `InputError` for numbers that do not make up `size` ranks."""
    if cfg not in (None, 1, BRANCHES):
        raise InputError(f"--cfg_parallel: expected 1 or {BRANCHES}, got {cfg}")
    fitting = [(c, size // c) for c in (BRANCHES, 1) if size % c == 0]
    if not any(cfg in (None, c) and context in (None, p) for c, p in fitting):
        pairs = " or ".join(f"{c} x {p}" for c, p in fitting)
        got = f"{'any' if cfg is None else cfg} x {'any' if context is None else context}"
        raise InputError(f"--num_gpus {size}: it is --cfg_parallel x --context_parallel, {pairs}; got {got}")
