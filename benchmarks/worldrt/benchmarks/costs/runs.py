"""The work of a whole run of Cosmos-Predict2, in the terms that time is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from worldrt.benchmarks.costs import cosmos
from worldrt.benchmarks.costs.cosmos import Clip
from worldrt.benchmarks.costs.text import encoder
from worldrt.benchmarks.costs.work import Work
from worldrt.export.families.cosmos.variants import PATCH, VAE_SCALE, DiTConfig, Variant, variant

BF16 = 2


@dataclass(frozen=True)
class RunWork:
    """`evaluation`: one of the transformer, of one clip and one text. `hidden_bytes`: one tensor of its width, over
    all its tokens. `encode` and `decode`: of the whole clip by the VAE. `text`: one prompt."""

    variant: Variant
    dit: DiTConfig
    clip: Clip
    evaluation: Work
    encode: Work
    decode: Work
    text: Work
    hidden_bytes: float
    cache_bytes: float

    @property
    def kv_bytes(self) -> float:
        """K and V of one block over all tokens."""
        return 2 * self.hidden_bytes

    @property
    def latent_bytes(self) -> float:
        return float(self.dit.latent_channels * self.clip.latent_bytes)


@lru_cache
def run_work(
    size: str, resolution: str = "720", fps: int = 16, sparse: bool = False, frames: int | None = None
) -> RunWork:
    """Of video2world in bfloat16. `frames`: of the clip, in pixels, where it is not the model's own length.

    Raises `InputError` for a model, a resolution or a rate that there is not.
    """
    v = variant(size, "video2world")
    if sparse:
        v = v.sparse(resolution)
    width, height = next(iter(v.sizes.values()))["16:9"] if "any" in v.sizes else v.pixel_size(resolution=resolution)
    latents = v.clip_latents(fps) if frames is None else 1 + (frames - 1) // 4
    rows, columns = height // VAE_SCALE, width // VAE_SCALE
    clip = Clip(latents, rows // PATCH, columns // PATCH, v.t5.tokens)
    steps = cosmos.vae_steps(v.vae, rows, columns, BF16)
    return RunWork(
        v,
        v.dit,
        clip,
        cosmos.denoiser(v.dit, clip, BF16)["denoise"],
        steps["encode_first"] + steps["encode_next"] * (latents - 1),
        steps["decode_first"] + steps["decode_next"] * (latents - 1),
        encoder(v.t5, v.t5.tokens, BF16),
        float(clip.tokens * v.dit.width * BF16),
        cosmos.vae_cache_bytes(v.vae, rows, columns, BF16),
    )
