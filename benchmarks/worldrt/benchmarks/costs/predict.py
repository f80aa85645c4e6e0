"""Seconds, bytes and memory of a run of Cosmos-Predict2 that nobody has measured yet, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from worldrt.benchmarks.costs.fit import Rates, fitted
from worldrt.benchmarks.costs.gpus import GPU
from worldrt.benchmarks.costs.runs import BF16, RunWork, run_work
from worldrt.engine.errors import InputError

FP8_SPEED = 1.9
"""Of matrix products in FP8 over those in bfloat16: twice on paper, 1500 over 790 TFLOP/s where both were measured."""
LINK_SHARE = 0.84
"""Of a link's bandwidth that a large all-gather reaches: 380 of 450 GB/s."""
LATENCY_S = 15e-6
"""Of a collective, however small."""
MLP_TENSORS, ATTENTION_TENSORS = 10, 4
"""Tensors of the hidden state's size that live at once: in the MLP (input, normalised input, and two four times as
wide), and in attention, beside K and V (input, normalised input, Q, result)."""
VAE_TENSORS = 4
"""Tensors of the widest full-resolution layer that live at once in the VAE."""


@dataclass(frozen=True)
class Setting:
    """What is asked. `steps` are followed by one clean evaluation. `skipped`: the share of evaluations that a step
    cache leaves out. `frames`: of the clip, None for the model's own length."""

    size: str = "2B"
    resolution: str = "720"
    fps: int = 16
    frames: int | None = None
    steps: int = 35
    guided: bool = True
    num_gpus: int = 1
    cfg_parallel: bool = False
    vae_parallel: bool = False
    fp8: bool = False
    fp8_attention: bool = False
    sparse: bool = False
    skipped: float = 0.0

    @property
    def evaluations(self) -> float:
        """Of the transformer, all texts together."""
        return (self.steps + 1) * (2 if self.guided else 1) * (1 - self.skipped)

    @property
    def context(self) -> int:
        """GPUs that share the tokens of an evaluation."""
        return self.num_gpus // 2 if self.cfg_parallel else self.num_gpus


@dataclass(frozen=True)
class Prediction:
    """Seconds by what they are spent on; of one GPU bytes received and bytes held, by what they are of."""

    setting: Setting
    gpu: str
    tokens: int
    gemm: float
    attention: float
    flops: float
    seconds: Mapping[str, float]
    received_bytes: Mapping[str, float]
    memory_bytes: Mapping[str, float]
    memory_limit_bytes: float
    assumptions: tuple[str, ...]

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def transformer_s(self) -> float:
        """Of the evaluations, with what they wait for."""
        return sum(self.seconds[name] for name in ("linear layers", "attention", "value by value", "communication"))

    @property
    def bound(self) -> str:
        """What takes the largest part of the time."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def resident_bytes(self) -> float:
        """With all models on the GPU at once."""
        return sum(self.memory_bytes.values())

    @property
    def staged_bytes(self) -> float:
        """With each model there only while it is needed: that of the stage that needs most."""
        m = self.memory_bytes
        transformer = m["transformer weights"] + m["transformer activations"] + m["K and V of a block"]
        return max(transformer, m["text encoder weights"], m["VAE weights"] + m["VAE activations"] + m["VAE caches"])

    def data(self) -> dict[str, object]:
        """Everything, for JSON."""
        totals = {"total_s": self.total_s, "bound": self.bound}
        totals |= {"resident_bytes": self.resident_bytes, "staged_bytes": self.staged_bytes}
        return asdict(self) | {"evaluations": self.setting.evaluations} | totals


def predict(setting: Setting, device: GPU, rates: Rates | None = None) -> Prediction:
    """`rates`: those that published runs reached on this GPU, unless others are given. Raises `InputError` for what
    cannot be run so."""
    _check(setting)
    rates = rates or fitted()[device.name]
    run = run_work(setting.size, setting.resolution, setting.fps, setting.sparse, setting.frames)
    received = _received_bytes(setting, run)
    return Prediction(
        setting,
        device.name,
        run.clip.tokens,
        rates.gemm,
        rates.attention,
        setting.evaluations * run.evaluation.flops,
        _seconds(setting, run, device, rates, received),
        received,
        _memory_bytes(setting, run),
        device.memory_bytes,
        _assumptions(setting, rates),
    )


def _check(s: Setting) -> None:
    if s.num_gpus < 1 or s.steps < 1 or not 0 <= s.skipped < 1 or (s.frames is not None and s.frames < 1):
        raise InputError("--num_gpus, --steps, --frames: expected 1 or more; --skipped: from 0 to below 1")
    if s.cfg_parallel and (s.num_gpus % 2 or not s.guided):
        raise InputError(f"--cfg_parallel: needs guidance and an even number of GPUs, got {s.num_gpus}")


def _seconds(s: Setting, run: RunWork, device: GPU, rates: Rates, received: Mapping[str, float]) -> dict[str, float]:
    """On the GPU that does most; nothing is assumed to overlap."""
    shared, times = rates.shared, s.evaluations / (2 if s.cfg_parallel else 1)
    gemm = rates.gemm * (FP8_SPEED if s.fp8 else 1)
    fused = rates.attention * (FP8_SPEED if s.fp8_attention else 1)
    passes = run.dit.blocks * shared.passes * run.hidden_bytes / device.bandwidth
    calls = times * (run.dit.blocks if s.context > 1 else 0) + (times if s.cfg_parallel else 0)
    vae = shared.vae_share * rates.gemm * (s.num_gpus if s.vae_parallel else 1)
    return {
        "linear layers": times * run.evaluation.linear / gemm / s.context,
        "attention": times * run.evaluation.attention / fused / s.context,
        "value by value": times * passes / s.context,
        "communication": sum(received.values()) / (LINK_SHARE * device.link) + calls * LATENCY_S,
        "VAE encode": run.encode.flops / run.clip.frames / vae,
        "VAE decode": run.decode.flops / vae,
        "text encoder": 2 * run.text.flops / rates.gemm,
        "beside": shared.beside_s,
    }


def _received_bytes(s: Setting, run: RunWork) -> dict[str, float]:
    """By each GPU, in the whole run."""
    times = s.evaluations / (2 if s.cfg_parallel else 1)
    gathered = times * run.dit.blocks * run.kv_bytes * (s.context - 1) / s.context
    return {"K and V": gathered, "guidance": times * run.latent_bytes / s.context if s.cfg_parallel else 0.0}


def _memory_bytes(s: Setting, run: RunWork) -> dict[str, float]:
    hidden = run.hidden_bytes / s.context
    attended = ATTENTION_TENSORS * hidden + (run.kv_bytes if s.context == 1 else run.kv_bytes * (1 + 1 / s.context))
    kv = run.kv_bytes
    tile, pixels = 4 * run.variant.vae.base * BF16, run.clip.tokens / run.clip.frames * 16**2
    return {
        "transformer weights": run.evaluation.weight_bytes * (0.5 if s.fp8 else 1),
        "transformer activations": max(MLP_TENSORS * hidden, attended) - (kv if attended > MLP_TENSORS * hidden else 0),
        "K and V of a block": kv if attended > MLP_TENSORS * hidden else 0.0,
        "text encoder weights": run.text.weight_bytes,
        "VAE weights": run.decode.weight_bytes + run.encode.weight_bytes,
        "VAE activations": VAE_TENSORS * tile * pixels,
        "VAE caches": run.cache_bytes,
    }


def _assumptions(s: Setting, rates: Rates) -> tuple[str, ...]:
    shared = rates.shared
    made = [
        f"matrix products run at {rates.gemm / 1e12:.0f} TFLOP/s and attention at {rates.attention / 1e12:.0f} TFLOP/s "
        "in bfloat16: what published runs of the official code reached on this GPU, unless rates were given",
        f"what is computed value by value passes over the hidden state {shared.passes:.0f} times in each block",
        f"the VAE runs at {shared.vae_share:.0%} of the rate of matrix products; it encodes one latent and decodes all",
        f"{shared.beside_s:.1f} s go by beside all of this, as in published runs",
        "nothing overlaps: each line of seconds is added to the others",
    ]
    if s.fp8 or s.fp8_attention:
        made.append(f"FP8 is {FP8_SPEED} times as fast as bfloat16")
    if s.context > 1:
        made.append(
            f"each block gathers K and V of all tokens; a gather reaches {LINK_SHARE:.0%} of the link and costs "
            f"{LATENCY_S * 1e6:.0f} us; tokens divide evenly"
        )
    if s.sparse:
        made.append("attention in a window costs what it reads, as a share of what it would read otherwise")
    if s.vae_parallel:
        made.append("the VAE's frames divide among GPUs without loss")
    return tuple(made)


LEVERS: dict[str, Mapping[str, object]] = {
    "as published: one GPU, bfloat16": {},
    "FP8 linear layers": {"fp8": True},
    "FP8 linear layers and attention": {"fp8": True, "fp8_attention": True},
    "guidance on two GPUs": {"num_gpus": 2, "cfg_parallel": True},
    "neighbourhood attention (720p only)": {"sparse": True},
    "step cache that skips a third": {"skipped": 1 / 3},
    "four distilled steps without guidance": {"steps": 4, "guided": False},
    "8 GPUs: tokens on 8": {"num_gpus": 8},
    "8 GPUs: guidance on 2, tokens on 4": {"num_gpus": 8, "cfg_parallel": True},
    "8 GPUs, the same, and the VAE on 8": {"num_gpus": 8, "cfg_parallel": True, "vae_parallel": True},
    "8 GPUs, all of this, and FP8": {
        **{"num_gpus": 8, "cfg_parallel": True, "vae_parallel": True},
        **{"fp8": True, "fp8_attention": True},
    },
}
"""What each change by itself would bring."""


def levers(setting: Setting, device: GPU) -> dict[str, Prediction | None]:
    """The setting with each lever; None where there is no such model."""
    made: dict[str, Prediction | None] = {}
    for name, change in LEVERS.items():
        try:
            made[name] = predict(replace(setting, **change), device)  # type: ignore[arg-type]
        except InputError:
            made[name] = None
    return made
