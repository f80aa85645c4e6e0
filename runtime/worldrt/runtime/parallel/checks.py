"""What stands in the way of sharing a clip among ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldrt.engine.bundle import Denoiser
from worldrt.engine.errors import InputError
from worldrt.runtime.chain import ATTEND, heads_of
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.share import VIEWS
from worldrt.runtime.request import Settings

if TYPE_CHECKING:
    from worldrt.runtime.models import Models


def check_settings(models: Models, task: str, settings: Settings, ranks: Ranks) -> None:
    """Raises `InputError` where a task with such settings cannot run on so many ranks."""
    manifest = models.opener(task).bundle.manifest
    temporal = manifest.vae.temporal if manifest.vae is not None else 1
    check_shared(
        manifest.denoisers[task], ranks, 1 + (settings.num_frames - 1) // temporal, guided=settings.guidance != 0
    )


def check_shared(spec: Denoiser, ranks: Ranks, frames: int, *, guided: bool) -> None:
    """Raises `InputError` where a denoiser cannot run on so many ranks."""
    parts = ranks.mesh(guided=guided).context
    if parts == 1 or (spec.form == "whole" and frames == 1):
        return
    few = "2" if guided and ranks.size > 2 else "1"
    if spec.form == "whole":
        raise InputError(
            f"--num_gpus {ranks.size}: the frames of a clip are shared out between blocks, and this model is one whole "
            f"graph; export it with --form block, or say --num_gpus {few}"
        )
    if spec.sparse is not None:
        raise InputError(
            f"--num_gpus {ranks.size}: a sparse model has windows over all frames of a clip, which are not shared out; "
            f"say --num_gpus {few}, or take the dense model"
        )
    if ranks.axis == VIEWS and (spec.layout is None or ranks.mode != "gather"):
        why = "this model has one view" if spec.layout is None else f"--cp_mode {ranks.mode} is about frames"
        raise InputError(f"--share views: {why}; leave --share out")
    if ranks.mode == "ulysses":
        _check_heads(spec, ranks, parts)


def _check_heads(spec: Denoiser, ranks: Ranks, parts: int) -> None:
    if ATTEND not in spec.graphs:
        raise InputError(
            f"--cp_mode {ranks.mode}: it wants attention as a graph of its own; export the model with --attention_cut, "
            "or leave --cp_mode out"
        )
    heads = heads_of(spec)
    if heads % parts:
        fitting = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
        raise InputError(
            f"--cp_mode {ranks.mode}: {parts} ranks cannot share {heads} heads evenly; let {fitting} ranks share the "
            "frames (--context_parallel), or leave --cp_mode out"
        )
