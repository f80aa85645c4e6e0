"""The denoiser for each way in which ranks attend to the frames of all."""

from __future__ import annotations

from worldrt.engine.bundle import Denoiser
from worldrt.runtime.components import Opener
from worldrt.runtime.parallel.denoiser import SharedDenoiser
from worldrt.runtime.parallel.heads import HeadsDenoiser
from worldrt.runtime.parallel.native import NativeDenoiser
from worldrt.runtime.parallel.ranks import Ranks


def shared_denoiser(opener: Opener, spec: Denoiser, ranks: Ranks) -> SharedDenoiser:
    """That of `ranks.mode`. Raises `InputError` where it is not for the backend."""
    if ranks.mode == "ulysses":
        return HeadsDenoiser(opener, spec, ranks)
    return NativeDenoiser(opener, spec, ranks) if ranks.mode == "native" else SharedDenoiser(opener, spec, ranks)
