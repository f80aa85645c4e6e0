"""What a manifest says of a model besides its graphs: how it is sampled, guided, conditioned and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Sampler:
    """Defaults of the sampler: a row table `kind` of `worldrt.runtime.samplers` and its numbers. `sigma_max` and
    `sigma_min` are the first and the last level that the network is shown; they are timesteps where its levels are.
    `shift` is that of flow matching's sigmas."""

    kind: str
    steps: int
    sigma_max: float
    sigma_min: float
    order: float = 7.0
    shift: float = 1.0


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
    """How a queue makes an endless video: a window is `history` clean frames, then `groups` groups of `group` latent
    frames at rising noise levels; after steps / groups rows the cleanest group leaves and one of noise enters. `fill`:
    it begins with a known video that is noised, or cold, with noise alone."""

    groups: int
    group: int
    history: int = 1
    fill: Literal["renoise", "cold"] = "renoise"


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
class Layout:
    """Frames of several views that are drawn from layouts: `views` at once, each from `images` of three channels, in
    this order, whose values are from 0 to 1, and `nothing` where no layout is asked for.

    The denoiser has a graph `layout` (image float32 (B, V, channels, H, W) -> residual), which is run once for each
    frame; it takes the residual, a text and a camera of each view with every frame. A camera is eleven numbers: frames
    per second, focal lengths and centre over height, height, width, height, forward direction, and place in metres.
    Prompts are encoded for every `text_interval`-th frame, and hold for those after it.
    """

    images: tuple[str, ...]
    nothing: float
    views: int
    text_interval: int = 1


@dataclass(frozen=True)
class Place:
    """Where the rows of one of several text encoders lie in the text that a denoiser takes: the first row and channel,
    and the first channel of its embedding of the whole prompt in `pooled`, where it gives one."""

    row: int
    channel: int
    pooled: int | None = None


@dataclass(frozen=True)
class Chunk:
    """What one run of a VAE's step graph takes and gives: latents and frames."""

    latents: int
    frames: int
