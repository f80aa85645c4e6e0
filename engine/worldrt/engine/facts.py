"""What a manifest says of a model besides its graphs: how it is sampled, guided, conditioned and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Sampler:
    """Defaults of the sampler: a row table `kind` of `worldrt.runtime.samplers` and its numbers. `sigma_max` and
    `sigma_min` are the first and the last level that the network is shown; they are timesteps where its levels are."""

    kind: str
    steps: int
    sigma_max: float
    sigma_min: float
    order: float = 7.0


@dataclass(frozen=True)
class Guidance:
    """`delta`: x0 = c + scale (c - u). `classic`: x0 = u + scale (c - u)."""

    convention: Literal["delta", "classic"]
    scale: float


@dataclass(frozen=True)
class Condition:
    """How an input of a denoiser is bound: per clip, per latent frame (and travelling with it), per view, or fixed."""

    bind: Literal["clip", "frame", "view", "constant"]


@dataclass(frozen=True)
class Sparse:
    """Neighbourhood attention: the name of each block's window (`12x24`, or `dense`), and the rows and columns of
    tokens that the windows are made for."""

    grid: tuple[int, int]
    windows: tuple[str, ...]


@dataclass(frozen=True)
class Diffusion:
    """Variance-preserving diffusion with levels that are timesteps, 0 to 999: the numbers of its noise schedule
    (`worldrt.engine.diffusion.alphas_cumprod`), and the precision in which samplers are to hold it."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    snr_shift: float = 3.0
    precision: Literal["float32", "float64"] = "float64"


@dataclass(frozen=True)
class Stream:
    """How a queue makes an endless video: a window is one clean frame, then `groups` groups of `group` latent frames
    at rising noise levels; after steps / groups rows the cleanest group leaves and one of noise enters."""

    groups: int
    group: int


@dataclass(frozen=True)
class Control:
    """The controls that a denoiser follows, one for each latent frame: their symbols, and a safetensors file of the
    bundle whose tensor `embeddings` float32 (symbols, width) has what the graphs take for each.

    In block form, `block_control` runs the blocks from `start` to `end` - 1.
    """

    symbols: tuple[str, ...]
    embeddings: str
    width: int
    start: int
    end: int


@dataclass(frozen=True)
class Chunk:
    """What one run of a VAE's step graph takes and gives: latents and frames."""

    latents: int
    frames: int
