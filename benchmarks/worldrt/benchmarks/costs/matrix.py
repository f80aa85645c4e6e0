"""What the networks of The Matrix have to do, from their sizes alone. Letters are those of `cosmos.py`."""

from __future__ import annotations

from worldrt.benchmarks.costs.cosmos import FLOAT, Clip
from worldrt.benchmarks.costs.tally import PAST, Tally
from worldrt.benchmarks.costs.work import Work, attention, linear
from worldrt.export.families.matrix.variants import PATCH, TEMPORAL, VAE_SCALE, DiTConfig, VAEConfig

PARTS = 6
"""Shift, scale and gate of video and of text."""


def denoiser(dit: DiTConfig, clip: Clip, item_bytes: int) -> Work:
    """The whole form; `clip.frames` are the window's, and each has its control."""
    d, e, b = dit.width, dit.time_width, clip.batch
    joined, levels = b * (clip.text + clip.tokens), b * (clip.frames + 1)
    wide, latent, c = dit.mlp_ratio * d, dit.latent_channels * PATCH**2, dit.control_width
    controls, count = dit.control_end - dit.control_start, b * clip.frames

    block = 4 * linear(joined, d, d) + 2 * linear(joined, d, wide) + 2 * linear(levels, e, PARTS * d)
    control = 2 * linear(b * clip.tokens, d, d) + 2 * linear(count, d, d) + linear(levels, e, PARTS * d)
    stem = linear(b * clip.tokens, latent, d) + linear(b * clip.text, dit.text_width, d)
    stem += linear(levels, d, e) + linear(levels, e, e)
    stem += linear(count, c, c) + linear(count, c, d) + linear(count, d, d)
    head = linear(count, e, 2 * d) + linear(b * clip.tokens, d, latent)
    attended = dit.blocks * attention(b, clip.text + clip.tokens, clip.text + clip.tokens, d)
    attended += controls * attention(b, clip.tokens, clip.frames, d)

    modulation, projections = _layer(e, PARTS * d) + 2 * d, 4 * _layer(d, d) + 4 * dit.head_dim
    parameters = dit.blocks * (2 * modulation + projections + _layer(d, wide) + _layer(wide, d))
    parameters += controls * (modulation + projections)
    parameters += _layer(latent, d) + _layer(dit.text_width, d) + _layer(d, e) + _layer(e, e)
    parameters += _layer(c, c) + _layer(c, d) + _layer(d, d)
    parameters += 2 * d + _layer(e, 2 * d) + 2 * d + _layer(d, latent)
    edges = 2 * dit.latent_channels * clip.latent_bytes + FLOAT * (b * clip.text * dit.text_width + count * c)
    edges += FLOAT * (count + clip.frames)
    flops = dit.blocks * block + controls * control + stem + head
    return Work(flops, attended, 0.0, float(parameters * item_bytes), float(edges))


def decode(config: VAEConfig, latents: int, rows: int, columns: int, item_bytes: int, is_first: bool) -> Work:
    """A chunk of latents to frames."""
    tally, size, z = Tally(1, item_bytes), rows * columns, config.latent_channels
    frames, scale, channels = latents, 1, config.widths[-1]
    tally.causal(frames, z, channels, size)
    for _ in range(2):
        _residual(tally, frames, channels, channels, size, z, scale)
    for number, width in enumerate(reversed(config.widths)):
        for _ in range(config.layers + 1):
            _residual(tally, frames, channels, width, size * scale, z, scale)
            channels = width
        if number < len(config.widths) - 1:
            scale *= 4
            tally.conv(frames, width, width, size * scale, 9)
            if number < config.temporal:
                frames = 2 * frames - (frames > 1 and frames % 2)
    _norm(tally, frames, channels, size, z)
    tally.causal(frames, channels, 3, size * scale)
    edges = FLOAT * latents * z * size + frames * 3 * size * VAE_SCALE**2 + sum(tally.cached) * (1 if is_first else 2)
    return tally.work(edges)


def encode(config: VAEConfig, frames: int, rows: int, columns: int, item_bytes: int, is_first: bool) -> Work:
    """A chunk of frames to latents: mean and deviation."""
    tally, size, count = Tally(1, item_bytes), rows * columns, frames
    scale, channels = VAE_SCALE**2, config.widths[0]
    tally.causal(count, 3, channels, size * scale)
    for number, width in enumerate(config.widths):
        for _ in range(config.layers):
            _residual(tally, count, channels, width, size * scale)
            channels = width
        if number < len(config.widths) - 1:
            scale //= 4
            if number < config.temporal:
                count = (count + 1) // 2
            tally.conv(count, width, width, size * scale, 9)
    for _ in range(2):
        _residual(tally, count, channels, channels, size)
    tally.parameters += 2 * channels
    tally.causal(count, channels, 2 * config.latent_channels, size)
    video = FLOAT * frames * 3 * size * VAE_SCALE**2
    latents = FLOAT * 2 * config.latent_channels * size * ((frames + TEMPORAL - 1) // TEMPORAL)
    return tally.work(video + latents + sum(tally.cached) * (1 if is_first else 2))


def _residual(
    tally: Tally, frames: int, channels_in: int, channels_out: int, size: float, latent: int = 0, scale: int = 1
) -> None:
    for channels in (channels_in, channels_out):
        if latent:
            _norm(tally, frames, channels, size / scale, latent)
        else:
            tally.parameters += 2 * channels
    tally.causal(frames, channels_in, channels_out, size, PAST)
    tally.causal(frames, channels_out, channels_out, size, PAST)
    if channels_in != channels_out:
        tally.conv(frames, channels_in, channels_out, size)


def _norm(tally: Tally, frames: int, channels: int, size: float, latent: int) -> None:
    """A norm whose gain and shift come from the latents, at their size."""
    tally.parameters += 2 * channels
    tally.conv(frames, latent, channels, size)
    tally.conv(frames, latent, channels, size)


def _layer(width_in: int, width_out: int) -> int:
    """Parameters of a linear layer with its bias."""
    return width_in * width_out + width_out
