"""Frames per second of a world that goes on and on: The Matrix on a denoising queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from worldrt.benchmarks.costs import matrix
from worldrt.benchmarks.costs.cosmos import Clip
from worldrt.benchmarks.costs.fit import Rates, fitted
from worldrt.benchmarks.costs.gpus import GPU
from worldrt.benchmarks.costs.predict import FP8_SPEED, LATENCY_S, LINK_SHARE
from worldrt.benchmarks.costs.runs import BF16
from worldrt.engine.errors import InputError
from worldrt.export.families.matrix.variants import PATCH, TEMPORAL, VAE_SCALE, Variant, variant

HISTORY = 1
"""Clean latent frames in front of the queue."""


@dataclass(frozen=True)
class World:
    """A shift of the queue of `groups` groups: `latents` leave it after `rows` rows of it. `seconds` of a shift, by
    part."""

    model: str
    gpu: str
    num_gpus: int
    latents: int
    rows: int
    evaluations: int
    groups: int
    tokens: int
    seconds: Mapping[str, float]
    assumptions: tuple[str, ...]

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def fps(self) -> float:
        return self.latents * TEMPORAL / self.total_s

    @property
    def latency_s(self) -> float:
        """From a control that comes just in time for the noisiest group to the first picture that it made: the rows
        that this group takes to leave the queue, and its decoding."""
        denoising = self.total_s - self.seconds["VAE decode"]
        return self.groups * denoising + self.seconds["VAE decode"]

    def data(self) -> dict[str, object]:
        """Everything, for JSON."""
        return asdict(self) | {"fps": self.fps, "latency_s": self.latency_s, "total_s": self.total_s}


def predict_world(model: str, device: GPU, num_gpus: int = 1, fp8: bool = False, rates: Rates | None = None) -> World:
    """Raises `InputError` for a model that is not sampled by a queue."""
    v, rates = variant(model), rates or fitted()[device.name]
    if v.stream is None:
        raise InputError(f"--model {model}: it makes clips of one length, and no stream")
    if num_gpus < 1:
        raise InputError(f"--num_gpus: expected 1 or more, got {num_gpus}")
    width, height = v.size_px
    rows, columns = height // VAE_SCALE, width // VAE_SCALE
    clip = Clip(_window(v), rows // PATCH, columns // PATCH, v.t5.tokens)
    work = matrix.denoiser(v.dit, clip, BF16)
    steps, group = v.sampler.steps // v.stream.groups, v.stream.group
    evaluations = steps * (1 if v.guidance == 1.0 else 2)
    hidden = (clip.tokens + clip.text) * v.dit.width * BF16
    gathered = v.dit.blocks * 2 * hidden * (num_gpus - 1) / num_gpus
    waits = v.dit.blocks * LATENCY_S if num_gpus > 1 else 0.0
    decode = matrix.decode(v.vae, 1, rows, columns, BF16, False)
    shared = rates.shared
    seconds = {
        "linear layers": evaluations * work.linear / (rates.gemm * (FP8_SPEED if fp8 else 1)) / num_gpus,
        "attention": evaluations * work.attention / rates.attention / num_gpus,
        "value by value": evaluations * v.dit.blocks * shared.passes * hidden / device.bandwidth / num_gpus,
        "communication": evaluations * (gathered / (LINK_SHARE * device.link) + waits),
        "VAE decode": group * decode.flops / (shared.vae_share * rates.gemm),
    }
    assumptions = (
        f"the rates of Cosmos-Predict2 on this GPU: {rates.gemm / 1e12:.0f} TFLOP/s of matrix products, "
        f"{rates.attention / 1e12:.0f} TFLOP/s of attention, the VAE at {shared.vae_share:.0%} of the first",
        "decoding follows denoising on the same GPUs and is not shared among them; nothing overlaps",
        "kernels are launched without gaps, as CUDA graphs do",
    )
    return World(
        model, device.name, num_gpus, group, steps, evaluations, v.stream.groups, clip.tokens, seconds, assumptions
    )


def _window(v: Variant) -> int:
    assert v.stream is not None
    return HISTORY + v.stream.groups * v.stream.group
