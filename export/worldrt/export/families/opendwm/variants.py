"""The models of OpenDWM as data: sizes, defaults, and where their weights are found.

`opendwm` is CTSD 3.5 XS with diffusion forcing, which the official interactive demo runs. `nano-opendwm` is ours: the
same networks, very small.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from worldrt.engine.bundle import Stream
from worldrt.engine.errors import InputError
from worldrt.export.modules.clip import CLIPConfig
from worldrt.export.modules.t5 import T5Config

NANO = "nano-opendwm"
REPOSITORY = "SenseTime-FVG/OpenDWM"
BASE_REPOSITORY = "stabilityai/stable-diffusion-3.5-medium"
PATCH = 2
"""Latent rows and columns of a token."""
VAE_SCALE = 8
"""Pixels of a latent row or column."""
CAMERA = 11
"""Numbers of a camera: frame rate, four of its lens, its forward direction, its place."""


@dataclass(frozen=True)
class DiTConfig:
    """Shape of the diffusion transformer. Lists hold numbers of layers: those with a second attention, those that a
    temporal block follows, those that a cross-view block follows. `stages` is how many first layers take a residual of
    the layout images."""

    layers: int = 12
    heads: int = 20
    head_dim: int = 64
    latent_channels: int = 16
    text_width: int = 4096
    pooled_width: int = 2048
    dual: tuple[int, ...] = tuple(range(12))
    temporal: tuple[int, ...] = tuple(range(12))
    crossview: tuple[int, ...] = (1, 3, 5, 7, 9, 11)
    stages: int = 6
    resnets: int = 2
    image_channels: int = 6
    position_grid: int = 384
    """Positions are those of the middle of a square of so many tokens."""
    position_base: int = 64
    """Tokens that the positions of that square are scaled to."""

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True)
class VAEConfig:
    """Shape of the image VAE of Stable Diffusion 3.5. (Latents - shift) times scaling are what the network sees."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    groups: int = 32
    latent_channels: int = 16
    scaling: float = 1.5305
    shift: float = 0.0609


@dataclass(frozen=True)
class Variant:
    """One model: the name that the command line has for it, and how the official demo runs it. `size_px` is the width
    and height of each of `views`; `uncond_image` is what the layout images are where nothing is asked for."""

    name: str
    dit: DiTConfig = DiTConfig()
    vae: VAEConfig = VAEConfig()
    clip: CLIPConfig = field(default_factory=CLIPConfig)
    clip2: CLIPConfig = field(default_factory=lambda: CLIPConfig(32, 1280, 20, 5120, 1280, quick=False, padding=0))
    t5: T5Config = field(
        default_factory=lambda: T5Config(width=4096, heads=64, head_dim=64, feed_forward=10240, gated=True, tokens=77)
    )
    size_px: tuple[int, int] = (304, 176)
    views: int = 3
    fps: int = 10
    steps: int = 24
    flow_shift: float = 3.0
    guidance: float = 4.0
    stream: Stream = field(default_factory=lambda: Stream(groups=6, group=1, history=0, fill="cold"))
    text_interval: int = 4
    uncond_image: float = 0.1255


def variants() -> list[Variant]:
    """All models, the smallest first."""
    nano = Variant(
        NANO,
        dit=DiTConfig(
            layers=4,
            heads=2,
            head_dim=32,
            text_width=64,
            pooled_width=56,
            dual=(0, 1, 2),
            temporal=(0, 1, 2, 3),
            crossview=(1, 3),
            stages=2,
            position_grid=48,
            position_base=8,
        ),
        vae=VAEConfig(widths=(16, 16, 32, 32), layers=1, groups=8),
        clip=CLIPConfig(2, 24, 2, 48, 24, vocabulary=514, tokens=24, padding=513),
        clip2=CLIPConfig(2, 32, 2, 64, 32, quick=False, vocabulary=514, tokens=24, padding=0),
        t5=T5Config(layers=2, width=64, heads=2, head_dim=32, feed_forward=128, gated=True, vocabulary=1024, tokens=24),
        size_px=(112, 64),
    )
    return [nano, Variant("opendwm")]


def variant(name: str) -> Variant:
    """The model of that name. Raises `InputError` that lists what there is."""
    for candidate in variants():
        if candidate.name == name:
            return candidate
    raise InputError(f"no OpenDWM model '{name}'; there are: {', '.join(v.name for v in variants())}")
