"""The stages of The Matrix as data: sizes, defaults, and where their weights are found.

All stages have the same networks, those of CogVideoX-2b with controls; they differ in weights and in how they are
sampled. `nano-matrix` is ours: the same networks, very small, sampled as stage 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from worldrt.engine.bundle import Diffusion, Stream
from worldrt.engine.errors import InputError
from worldrt.export.modules.t5 import T5Config

NANO = "nano-matrix"
REPOSITORY = "MatrixTeam/TheMatrix"
CLIP_REPOSITORY = "openai/clip-vit-large-patch14"
PATCH = 2
"""Latent rows and columns of a token."""
VAE_SCALE = 8
"""Pixels of a latent row or column."""
TEMPORAL = 4
"""Frames of a latent."""


@dataclass(frozen=True)
class DiTConfig:
    """Shape of the diffusion transformer. Control blocks follow the blocks from `control_start` to `control_end` - 1.
    Positions of rows and columns are divided by `spatial_scale`, those of frames by `temporal_scale`."""

    blocks: int = 30
    heads: int = 30
    head_dim: int = 64
    latent_channels: int = 16
    time_width: int = 512
    text_width: int = 4096
    control_width: int = 768
    control_start: int = 15
    control_end: int = 30
    mlp_ratio: int = 4
    spatial_scale: float = 1.875
    temporal_scale: float = 1.0

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    def has_control(self, block: int) -> bool:
        """Whether a control block follows block number `block`."""
        return self.control_start <= block < self.control_end


@dataclass(frozen=True)
class VAEConfig:
    """Shape of the causal video VAE of CogVideoX. Latents times `scaling` have a standard deviation of one."""

    widths: tuple[int, ...] = (128, 256, 256, 512)
    layers: int = 3
    groups: int = 32
    latent_channels: int = 16
    temporal: int = 2
    """How many of the spatial halvings, the first ones, halve time too."""
    scaling: float = 1.15258426


@dataclass(frozen=True)
class SamplerDefaults:
    """`kind` as the runtime knows it, how many steps, and the first and the last timestep that the network is shown."""

    kind: str
    steps: int
    first: int
    last: int


@dataclass(frozen=True)
class Variant:
    """One model: the name that the command line has for it, and the folder of its stage.

    `frames` are the pixel frames of a window. `stream` says how a queue runs it; stage 2 makes whole clips.
    """

    name: str
    stage: str
    sampler: SamplerDefaults
    guidance: float
    frames: int
    stream: Stream | None = None
    dit: DiTConfig = DiTConfig()
    vae: VAEConfig = VAEConfig()
    t5: T5Config = field(
        default_factory=lambda: T5Config(width=4096, heads=64, head_dim=64, feed_forward=10240, gated=True, tokens=226)
    )
    size_px: tuple[int, int] = (720, 480)

    @property
    def aspect_ratio(self) -> str:
        return "3:2" if self.size_px == (720, 480) else "16:10"

    @property
    def diffusion(self) -> Diffusion:
        """The official scheduler of stage 4 holds its noise schedule in float32, others in float64."""
        return Diffusion(precision="float32" if self.sampler.kind == "phased_ddim" else "float64")

    def fixed_levels(self) -> tuple[int, ...]:
        """The timesteps of a window's frames where these never change. Raises `InputError` where they do."""
        if self.stream is None or self.sampler.kind != "phased_ddim" or self.stream.groups != self.sampler.steps:
            raise InputError(f"--fold_levels: the noise levels of {self.name} change from step to step; leave it out")
        top, steps = self.sampler.first + 1, self.sampler.steps
        each = (top * step // steps - 1 for step in range(1, steps + 1))
        return (0, *(t for t in each for _ in range(self.stream.group)))


def variants() -> list[Variant]:
    """All models, the smallest first."""
    stage_4 = SamplerDefaults("phased_ddim", 4, 999, 249)
    base = Variant("matrix-stage2", "stage2", SamplerDefaults("dpm_sde", 50, 999, 19), guidance=6.0, frames=65)
    swin = Stream(groups=4, group=4)
    return [
        Variant(
            NANO,
            "stage4",
            stage_4,
            guidance=1.0,
            frames=17,
            stream=Stream(groups=4, group=1),
            dit=DiTConfig(
                blocks=4,
                heads=4,
                head_dim=32,
                time_width=64,
                text_width=128,
                control_width=48,
                control_start=2,
                control_end=4,
            ),
            vae=VAEConfig(widths=(16, 32, 32, 64), layers=1, groups=8),
            t5=T5Config(
                layers=2, width=128, heads=4, head_dim=32, feed_forward=256, gated=True, vocabulary=1024, tokens=64
            ),
            size_px=(128, 80),
        ),
        base,
        Variant("matrix-stage3", "stage3", SamplerDefaults("dpm_sde", 20, 999, 49), 6.0, 65, swin),
        Variant("matrix-stage4", "stage4", stage_4, 1.0, 17, Stream(groups=4, group=1)),
    ]


def variant(name: str) -> Variant:
    """The model of that name. Raises `InputError` that lists what there is."""
    for candidate in variants():
        if candidate.name == name:
            return candidate
    raise InputError(f"no Matrix model '{name}'; there are: {', '.join(v.name for v in variants())}")
