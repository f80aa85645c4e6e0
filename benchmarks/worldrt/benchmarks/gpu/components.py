"""What stands beside the transformer of 2B at 480p, by torch with random weights: text encoder and steps of the VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from worldrt.benchmarks.gpu._torch import materialised, peak_gb
from worldrt.benchmarks.gpu.base import Made, Samples, Setup, first_line, row, timed
from worldrt.benchmarks.gpu.model import model_of
from worldrt.benchmarks.results import Table
from worldrt.export.families.cosmos.vae import DecodeStep, EncodeStep
from worldrt.export.families.cosmos.variants import VAE_SCALE
from worldrt.export.modules.t5 import T5Encoder

COLUMNS = ("component", "given", "min_ms", "median_ms", "p90_ms", "peak_GB")
Ready = tuple[nn.Module, tuple[Any, ...], str]
"""A module, its arguments, and a word on them."""


@torch.no_grad()
def run(setup: Setup) -> Iterator[Made]:
    """A component that fails is a line of its table."""
    for name, make in _components(setup).items():
        yield _measured(setup, name, make)


def _measured(setup: Setup, name: str, make: Callable[[], Ready]) -> Made:
    line: tuple[Any, ...]
    samples: Samples = {}
    try:
        module, given, what = make()
        samples[f"{name}_s"] = values = timed(setup, lambda: module(*given))
        line = (name, what, *row(values), peak_gb(setup.device))
    except Exception as failure:
        line = (name, first_line(failure), *[None] * 4)
    return [Table(f"{name} on {setup.device}", COLUMNS, (line,))], samples


def _components(setup: Setup) -> dict[str, Callable[[], Ready]]:
    v, dtype, _, height, width = model_of(setup)
    device, size = setup.device, f"{VAE_SCALE * width} x {VAE_SCALE * height}"

    def video(frames: int) -> torch.Tensor:
        return torch.rand(1, 3, frames, VAE_SCALE * height, VAE_SCALE * width, device=device) * 2 - 1

    def latent() -> torch.Tensor:
        return torch.randn(1, v.vae.latent_channels, 1, height, width, device=device)

    def encode() -> Ready:
        step = materialised(lambda: EncodeStep(v.vae), device, dtype)
        return step, (video(4), *step(video(1))[1:]), f"4 frames of {size}"

    def decode() -> Ready:
        step = materialised(lambda: DecodeStep(v.vae), device, dtype)
        return step, (latent(), *step(latent())[1:]), f"a latent of {size}"

    def text() -> Ready:
        ids = torch.randint(0, v.t5.vocabulary, (1, v.t5.tokens), device=device)
        encoder = materialised(lambda: T5Encoder(v.t5), device, dtype)
        return encoder, (ids, torch.ones(1, v.t5.tokens, device=device)), f"{v.t5.tokens} tokens"

    return {"VAE decode_next": decode, "VAE encode_next": encode, "text encoder": text}
