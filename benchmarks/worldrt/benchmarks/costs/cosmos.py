"""What the networks of Cosmos-Predict2 have to do, from their sizes alone.

Letters as in the networks: B batch, T latent frames, S tokens of a frame, L = T S, D width, N text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from worldrt.benchmarks.costs.tally import PAST, Tally
from worldrt.benchmarks.costs.work import Work, attention, linear
from worldrt.export.families.cosmos.variants import PATCH, VAE_SCALE, DiTConfig, VAEConfig
from worldrt.export.families.cosmos.windows import Window

FLOAT = 4
"""Bytes of a value of latents, texts and levels: they are float32 whatever is computed in."""


@dataclass(frozen=True)
class Clip:
    """Sizes of a call: latent frames, rows and columns of tokens. `context`: frames whose K and V are read."""

    frames: int
    rows: int
    columns: int
    text: int = 512
    batch: int = 1
    context: int = 0

    @property
    def frame_tokens(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return self.frames * self.frame_tokens

    @property
    def context_tokens(self) -> int:
        return (self.context or self.frames) * self.frame_tokens

    @property
    def latent_bytes(self) -> int:
        """Of one channel of the latents."""
        return FLOAT * self.batch * self.tokens * PATCH**2


def denoiser(
    dit: DiTConfig, clip: Clip, item_bytes: int, form: str = "whole", stored_bytes: int | None = None
) -> dict[str, Work]:
    """The work of each graph, all instances together; `item_bytes` are those of a value in compute precision, and
    `stored_bytes` those of a weight in the checkpoint, where they are others."""
    parts = _Parts(dit, clip, stored_bytes or item_bytes)
    latents = dit.latent_channels * clip.latent_bytes
    given = latents * (2 if dit.condition_mask else 1) + FLOAT * clip.frames  # and positions
    levels = FLOAT * clip.batch * clip.frames * (2 if dit.condition_mask else 1)
    text = FLOAT * clip.batch * clip.text * dit.text_width
    if form == "whole":
        blocks = sum((parts.rest(window) for window in dit.block_windows()), Work()) + _sum(parts.project(), dit.blocks)
        work = parts.first() + blocks + parts.last() + Work(edge_bytes=given + levels + text + latents)
        return {"denoise": work}
    hidden = clip.batch * clip.tokens * dit.width * item_bytes
    kv = 2 * clip.batch * clip.context_tokens * dit.width * item_bytes
    cond = 4 * clip.batch * clip.frames * dit.width * item_bytes
    tables = FLOAT * clip.tokens * dit.head_dim  # cosines and sines
    row = FLOAT * 2 * clip.frames  # which rows of a frame there are
    made = 4 * hidden  # hidden state, Q, and K with V
    instances = dit.blocks - 1
    rests = [parts.rest(window) + parts.modulation() for window in dit.block_windows()]
    block = sum(rests[:-1], Work()) + _sum(parts.project(), instances)
    taken = 2 * hidden + kv + text + cond
    return {
        "embed": parts.first() + parts.project() + Work(edge_bytes=given + row + levels + made + cond + tables),
        "block": block + Work(edge_bytes=instances * (taken + tables + made)),
        "head": rests[-1] + parts.last() + Work(edge_bytes=taken + given - FLOAT * clip.frames + levels + latents),
    }


@dataclass(frozen=True)
class _Parts:
    """The modules that graphs are linked from."""

    dit: DiTConfig
    clip: Clip
    stored_bytes: int

    def first(self) -> Work:
        """Patches, and the embedding of noise levels. The padding mask's channel is stored, and not computed."""
        d, patch = self.dit.width, PATCH**2
        channels = self.dit.latent_channels + self.dit.condition_mask
        flops = linear(self._rows, channels * patch, d) + linear(self._frames, d, 4 * d)
        return self._work(flops, self.dit.patch_channels * patch * d + d + 4 * d * d)

    def last(self) -> Work:
        d, out = self.dit.width, self.dit.latent_channels * PATCH**2
        return self.modulation(2) + self._work(linear(self._rows, d, out), d * out)

    def modulation(self, parts: int = 3) -> Work:
        d, rank = self.dit.width, self.dit.adaln_rank
        flops = linear(self._frames, d, rank) + linear(self._frames, rank, parts * d)
        return self._work(flops, (1 + parts) * d * rank)

    def project(self) -> Work:
        d = self.dit.width
        return self.modulation() + self._work(3 * linear(self._rows, d, d), 3 * d * d + 2 * self.dit.head_dim)

    def rest(self, window: Window | None = None) -> Work:
        """Without the gate of self-attention, which the block form computes a second time."""
        d, wide, c, clip = self.dit.width, self.dit.mlp_ratio * self.dit.width, self.dit.text_width, self.clip
        flops = 3 * linear(self._rows, d, d) + 2 * linear(self._rows, d, wide)
        flops += 2 * linear(clip.batch * clip.text, c, d)
        keys = clip.context_tokens if window is None else clip.frames * window.size[0] * window.size[1]
        attended = attention(clip.batch, clip.tokens, keys + clip.text, d)
        parameters = 3 * d * d + 2 * c * d + 2 * self.dit.head_dim + 2 * d * wide
        modulated = self.modulation() + self.modulation()
        return modulated + self._work(flops, parameters) + Work(attention=attended)

    @property
    def _rows(self) -> int:
        return self.clip.batch * self.clip.tokens

    @property
    def _frames(self) -> int:
        return self.clip.batch * self.clip.frames

    def _work(self, flops: float, parameters: int) -> Work:
        return Work(linear=flops, weight_bytes=float(parameters * self.stored_bytes))


def vae_steps(config: VAEConfig, rows: int, columns: int, item_bytes: int, batch: int = 1) -> dict[str, Work]:
    """The work of a step of each kind; rows and columns are those of latents."""
    made = {}
    for step in ("encode_first", "encode_next", "decode_first", "decode_next"):
        is_first, is_encoder = step.endswith("first"), step.startswith("encode")
        tally = Tally(batch, item_bytes)
        (_encode if is_encoder else _decode)(tally, config, rows * columns, is_first)
        made[step] = tally.work(_vae_edges(config, rows * columns, is_first, is_encoder, tally))
    return made


def vae_cache_bytes(config: VAEConfig, rows: int, columns: int, item_bytes: int) -> float:
    """What a decoder keeps from step to step."""
    tally = Tally(1, item_bytes)
    _decode(tally, config, rows * columns, False)
    return sum(tally.cached)


def _vae_edges(config: VAEConfig, size: int, is_first: bool, is_encoder: bool, tally: Tally) -> float:
    frames, pixels = 1 if is_first else 4, size * VAE_SCALE**2
    video = tally.batch * frames * 3 * pixels * (FLOAT if is_encoder else 1)  # decoded to uint8
    latent = tally.batch * FLOAT * config.latent_channels * size
    return video + latent + sum(tally.cached) * (1 if is_first else 2)


def _encode(tally: Tally, config: VAEConfig, size: float, is_first: bool) -> None:
    past = 0 if is_first else PAST
    scale, frames = 4 ** len(config.temporal), 1 if is_first else 4
    tally.causal(frames, 3, config.base, size * scale, past)
    channels = config.base
    for stage, multiplier in enumerate(config.multipliers):
        width = config.base * multiplier
        for _ in range(config.residual_blocks):
            _residual(tally, frames, channels, width, size * scale, past)
            channels = width
        if stage < len(config.temporal):
            scale //= 4
            tally.conv(frames, width, width, size * scale, 9)
            if config.temporal[stage]:
                tally.keep(width, size * scale, 1)
                frames = max(1, frames // 2)
                if not is_first:
                    tally.conv(frames, width, width, size * scale, 3)
    _middle(tally, channels, size, past)
    tally.parameters += channels
    tally.causal(1, channels, 2 * config.latent_channels, size, past)
    tally.conv(1, 2 * config.latent_channels, 2 * config.latent_channels, size)


def _decode(tally: Tally, config: VAEConfig, size: float, is_first: bool) -> None:
    past, scale, frames = 0 if is_first else PAST, 1, 1
    channels = config.base * config.multipliers[-1]
    tally.conv(1, config.latent_channels, config.latent_channels, size)
    tally.causal(1, config.latent_channels, channels, size, past)
    _middle(tally, channels, size, past)
    for stage, multiplier in enumerate(reversed(config.multipliers)):
        width = config.base * multiplier
        for _ in range(config.residual_blocks + 1):
            _residual(tally, frames, channels, width, size * scale, past)
            channels = width
        if stage < len(config.temporal):
            if config.temporal[-1 - stage]:
                tally.keep(width, size * scale)
                if not is_first:
                    tally.conv(frames, width, 2 * width, size * scale, 3)
                    frames *= 2
            scale *= 4
            tally.conv(frames, width, width // 2, size * scale, 9)
            channels = width // 2
    tally.parameters += channels
    tally.causal(frames, channels, 3, size * scale, past)


def _middle(tally: Tally, channels: int, size: float, past: int) -> None:
    _residual(tally, 1, channels, channels, size, past)
    tally.parameters += channels
    tally.conv(1, channels, 3 * channels, size)
    tally.attend(channels, size)
    tally.conv(1, channels, channels, size)
    _residual(tally, 1, channels, channels, size, past)


def _residual(tally: Tally, frames: int, channels_in: int, channels_out: int, size: float, past: int) -> None:
    tally.parameters += channels_in + channels_out  # norms
    tally.causal(frames, channels_in, channels_out, size, past)
    tally.causal(frames, channels_out, channels_out, size, past)
    if channels_in != channels_out:
        tally.conv(frames, channels_in, channels_out, size)


def _sum(work: Work, times: int) -> Work:
    """So many of a part, each with weights of its own."""
    return work * times + Work(weight_bytes=work.weight_bytes * (times - 1))
