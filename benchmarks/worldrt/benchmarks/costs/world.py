"""Frames per second of a world that goes on and on: The Matrix or OpenDWM on a denoising queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from worldrt.benchmarks.costs import matrix, opendwm
from worldrt.benchmarks.costs.cosmos import Clip
from worldrt.benchmarks.costs.fit import Rates, fitted
from worldrt.benchmarks.costs.gpus import GPU
from worldrt.benchmarks.costs.predict import FP8_SPEED, LATENCY_S, LINK_SHARE
from worldrt.benchmarks.costs.runs import BF16
from worldrt.benchmarks.costs.work import Work
from worldrt.engine.errors import InputError
from worldrt.export.families.matrix.variants import PATCH, TEMPORAL, VAE_SCALE, variant
from worldrt.export.families.opendwm.graphs import View
from worldrt.export.families.opendwm.variants import variant as opendwm_variant

HISTORY = 1
"""Clean latent frames in front of the queue of The Matrix."""
OPENDWM = "opendwm"


@dataclass(frozen=True)
class _Queue:
    """A queue of `groups` groups, and its work: `row` of one evaluation of its window, `decode` of all that leaves in a
    shift. `hidden_bytes`: one tensor of the network's width over the window. `frames` of a view leave in a shift."""

    latents: int
    frames: int
    rows: int
    guided: bool
    groups: int
    tokens: int
    blocks: int
    hidden_bytes: float
    row: Work
    decode: Work


@dataclass(frozen=True)
class World:
    """A shift of the queue of `groups` groups: `latents` leave it after `rows` rows of it, and become `frames` of each
    view. `seconds` of a shift, by part."""

    model: str
    gpu: str
    num_gpus: int
    latents: int
    frames: int
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
        return self.frames / self.total_s

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
    """Raises `InputError` for a model that is not sampled by a queue, and for a number of GPUs that cannot be."""
    rates = rates or fitted()[device.name]
    if num_gpus < 1:
        raise InputError(f"--num_gpus: expected 1 or more, got {num_gpus}")
    if model == OPENDWM and num_gpus > 1:
        raise InputError("--num_gpus: how OpenDWM divides over GPUs is not part of the cost model; leave the flag out")
    queue = _opendwm() if model == OPENDWM else _matrix(model)
    evaluations = queue.rows * (2 if queue.guided else 1)
    gathered = queue.blocks * 2 * queue.hidden_bytes * (num_gpus - 1) / num_gpus
    waits = queue.blocks * LATENCY_S if num_gpus > 1 else 0.0
    shared, passes = rates.shared, rates.shared.passes * queue.blocks
    seconds = {
        "linear layers": evaluations * queue.row.linear / (rates.gemm * (FP8_SPEED if fp8 else 1)) / num_gpus,
        "attention": evaluations * queue.row.attention / rates.attention / num_gpus,
        "value by value": evaluations * passes * queue.hidden_bytes / device.bandwidth / num_gpus,
        "communication": evaluations * (gathered / (LINK_SHARE * device.link) + waits),
        "VAE decode": queue.decode.flops / (shared.vae_share * rates.gemm),
    }
    assumptions = (
        f"the rates of Cosmos-Predict2 on this GPU: {rates.gemm / 1e12:.0f} TFLOP/s of matrix products, "
        f"{rates.attention / 1e12:.0f} TFLOP/s of attention, the VAE at {shared.vae_share:.0%} of the first",
        "decoding follows denoising on the same GPUs and is not shared among them; nothing overlaps",
        "kernels are launched without gaps, as CUDA graphs do",
    )
    return World(
        *(model, device.name, num_gpus, queue.latents, queue.frames, queue.rows, evaluations, queue.groups),
        *(queue.tokens, seconds, assumptions),
    )


def _matrix(model: str) -> _Queue:
    v = variant(model)
    if v.stream is None:
        raise InputError(f"--model {model}: it makes clips of one length, and no stream")
    width, height = v.size_px
    rows, columns = height // VAE_SCALE, width // VAE_SCALE
    group, groups = v.stream.group, v.stream.groups
    clip = Clip(HISTORY + groups * group, rows // PATCH, columns // PATCH, v.t5.tokens)
    return _Queue(
        latents=group,
        frames=group * TEMPORAL,
        rows=v.sampler.steps // groups,
        guided=v.guidance != 1.0,
        groups=groups,
        tokens=clip.tokens,
        blocks=v.dit.blocks,
        hidden_bytes=(clip.tokens + clip.text) * v.dit.width * BF16,
        row=matrix.denoiser(v.dit, clip, BF16),
        decode=matrix.decode(v.vae, 1, rows, columns, BF16, False) * group,
    )


def _opendwm() -> _Queue:
    """A latent is a frame of each view. Blocks: those of pictures, and those between frames and between views."""
    v = opendwm_variant(OPENDWM)
    view, group, groups = View.of(v), v.stream.group, v.stream.groups
    text = v.clip.tokens + v.t5.tokens
    call = opendwm.Views(groups * group, view.count, view.rows, view.columns, text)
    tokens = call.pictures * call.tokens
    return _Queue(
        latents=group,
        frames=group,
        rows=v.steps // groups,
        guided=v.guidance != 1.0,
        groups=groups,
        tokens=tokens,
        blocks=v.dit.layers + len(v.dit.temporal) + len(v.dit.crossview),
        hidden_bytes=(tokens + call.pictures * text) * v.dit.width * BF16,
        row=opendwm.denoiser(v.dit, call, BF16),
        decode=opendwm.decode(v.vae, view.count, 2 * view.rows, 2 * view.columns, BF16) * group,
    )
