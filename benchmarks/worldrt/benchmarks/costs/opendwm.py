"""What the networks of OpenDWM have to do, from their sizes alone.

Letters as in the networks: B batch, T frames, V views, S tokens of a picture, N text tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from worldrt.benchmarks.costs.cosmos import FLOAT
from worldrt.benchmarks.costs.tally import Tally
from worldrt.benchmarks.costs.work import Work, attention, linear
from worldrt.export.families.opendwm.variants import CAMERA, PATCH, VAE_SCALE, DiTConfig, VAEConfig

SINUSOIDS = 256
DUAL, SINGLE, LAST, OUT = 9, 6, 2, 2
"""Vectors that a noise level gives: to a block with a second attention, to others, to the text of the last one, and to
the last layer."""


@dataclass(frozen=True)
class Views:
    """Sizes of a call: frames, views, rows and columns of tokens of each picture."""

    frames: int
    views: int
    rows: int
    columns: int
    text: int = 77
    batch: int = 1

    @property
    def pictures(self) -> int:
        return self.batch * self.frames * self.views

    @property
    def tokens(self) -> int:
        """Of a picture."""
        return self.rows * self.columns


@dataclass
class _Layers:
    """Adds up layers: rows that go through linear ones, and their parameters."""

    flops: float = 0.0
    attended: float = 0.0
    parameters: int = 0

    def linear(self, rows: float, width_in: int, width_out: int, *, times: int = 1, bias: bool = True) -> None:
        self.flops += times * linear(rows, width_in, width_out)
        self.parameters += times * (width_in * width_out + (width_out if bias else 0))

    def two(self, rows: float, width_in: int, wide: int, width: int) -> None:
        """Two linear layers."""
        self.linear(rows, width_in, wide)
        self.linear(rows, wide, width)


def denoiser(dit: DiTConfig, call: Views, item_bytes: int) -> Work:
    """The whole form, one evaluation."""
    d, pictures, tokens = dit.width, call.pictures, call.pictures * call.tokens
    made = _Layers()
    made.linear(tokens, dit.latent_channels * PATCH**2, d)
    made.linear(pictures * call.text, dit.text_width, d)
    made.two(pictures, SINUSOIDS, d, d)
    made.two(pictures, dit.pooled_width, d, d)
    made.two(pictures, CAMERA * SINUSOIDS, d, d)
    for layer in range(dit.layers):
        _joint(made, dit, call, dual=layer in dit.dual, last=layer == dit.layers - 1)
        if layer in dit.temporal:
            _between(made, dit, call.frames, tokens, call.batch * call.views * call.tokens, call.frames)
        if layer in dit.crossview:
            rows = call.batch * call.frames * call.rows
            _between(made, dit, call.views, tokens, rows, call.views * call.columns)
    made.linear(pictures, d, OUT * d)
    made.linear(tokens, d, dit.latent_channels * PATCH**2)
    latents = dit.latent_channels * PATCH**2 * tokens
    given = pictures * (call.text * dit.text_width + dit.pooled_width + CAMERA) + dit.stages * tokens * d
    edges = FLOAT * (2 * latents + given + call.batch * call.frames + call.frames + call.views)
    return Work(made.flops, made.attended, 0.0, float(made.parameters * item_bytes), float(edges))


def layout(dit: DiTConfig, call: Views, item_bytes: int) -> Work:
    """The residuals of the layout images of one frame."""
    d, pictures = dit.width, call.batch * call.views
    tally, pixels = Tally(pictures, item_bytes), dit.image_channels * VAE_SCALE**2
    tally.conv(1, pixels, d, call.tokens)
    for _ in range(dit.stages):
        for _ in range(dit.resnets):
            tally.conv(1, d, d, call.tokens, 9)
            tally.conv(1, d, d, call.tokens)
        tally.conv(1, d, d, call.tokens)
    images = pictures * pixels * PATCH**2 * call.tokens
    return tally.work(FLOAT * float(images + pictures * dit.stages * call.tokens * d))


def _joint(made: _Layers, dit: DiTConfig, call: Views, *, dual: bool, last: bool) -> None:
    """Attention over a picture with its text, that of the picture alone, and feed-forward layers."""
    d, pictures, tokens, text = dit.width, call.pictures, call.pictures * call.tokens, call.pictures * call.text
    made.linear(pictures, d, (DUAL if dual else SINGLE) * d)
    made.linear(pictures, d, (LAST if last else SINGLE) * d)
    made.linear(tokens, d, d, times=4)
    made.linear(text, d, d, times=2 if last else 4)
    asking = call.tokens + (0 if last else call.text)
    made.attended += attention(pictures, asking, call.tokens + call.text, d)
    made.parameters += (3 if last else 4) * dit.head_dim
    made.two(tokens, d, 4 * d, d)
    if dual:
        made.linear(tokens, d, d, times=4)
        made.attended += attention(pictures, call.tokens, call.tokens, d)
        made.parameters += 2 * dit.head_dim
    if not last:
        made.two(text, d, 4 * d, d)


def _between(made: _Layers, dit: DiTConfig, numbers: int, tokens: int, sequences: int, length: int) -> None:
    """A block over `sequences` of a `length`, the numbers of its slots or views embedded, and its mixer."""
    d = dit.width
    made.two(numbers, d, 4 * d, d)
    for _ in range(2):  # gated feed-forward layers
        made.linear(tokens, d, 8 * d)
        made.linear(tokens, 4 * d, d)
    made.linear(tokens, d, d, times=3, bias=False)
    made.linear(tokens, d, d)
    made.attended += attention(sequences, length, length, d)
    made.parameters += 3 * 2 * d + 2 * dit.head_dim + 1


def encode(config: VAEConfig, pictures: int, rows: int, columns: int, item_bytes: int) -> Work:
    """Pictures to mean and deviation; rows and columns are those of latents."""
    tally, size, widths = Tally(pictures, item_bytes), rows * columns, config.widths
    scale, channels = VAE_SCALE**2, widths[0]
    tally.conv(1, 3, channels, size * scale, 9)
    for number, width in enumerate(widths):
        for _ in range(config.layers):
            _residual(tally, channels, width, size * scale)
            channels = width
        if number < len(widths) - 1:
            scale //= 4
            tally.conv(1, width, width, size * scale, 9)
    middle = _middle(tally, channels, size)
    tally.parameters += 2 * channels
    tally.conv(1, channels, 2 * config.latent_channels, size, 9)
    edges = FLOAT * pictures * size * (3 * VAE_SCALE**2 + 2 * config.latent_channels)
    return tally.work(float(edges)) + middle


def decode(config: VAEConfig, pictures: int, rows: int, columns: int, item_bytes: int) -> Work:
    """Latents to uint8 pictures."""
    tally, size, scale = Tally(pictures, item_bytes), rows * columns, 1
    channels = config.widths[-1]
    tally.conv(1, config.latent_channels, channels, size, 9)
    middle = _middle(tally, channels, size)
    for number, width in enumerate(reversed(config.widths)):
        for _ in range(config.layers + 1):
            _residual(tally, channels, width, size * scale)
            channels = width
        if number < len(config.widths) - 1:
            scale *= 4
            tally.conv(1, width, width, size * scale, 9)
    tally.parameters += 2 * channels
    tally.conv(1, channels, 3, size * scale, 9)
    edges = pictures * size * (FLOAT * config.latent_channels + 3 * VAE_SCALE**2)
    return tally.work(float(edges)) + middle


def _residual(tally: Tally, channels_in: int, channels_out: int, size: float) -> None:
    tally.parameters += 2 * (channels_in + channels_out)
    tally.conv(1, channels_in, channels_out, size, 9)
    tally.conv(1, channels_out, channels_out, size, 9)
    if channels_in != channels_out:
        tally.conv(1, channels_in, channels_out, size)


def _middle(tally: Tally, channels: int, size: float) -> Work:
    """Two residual blocks, and the linear layers of the attention between them, which are no convolutions here."""
    for _ in range(2):
        _residual(tally, channels, channels, size)
    tally.attend(channels, size)
    parameters = 4 * (channels * channels + channels) + 2 * channels
    flops = 4 * linear(tally.batch * size, channels, channels)
    return Work(linear=flops, weight_bytes=float(parameters * tally.item_bytes))
