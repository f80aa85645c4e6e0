"""The diffusion transformer of The Matrix: that of CogVideoX-2b (arXiv 2408.06072), with a noise level for each latent
frame and with controls. It predicts v from latents; `denoiser.py` wraps it into a clean-latent predictor.

Parameters have the names of official checkpoints. Shape letters: B batch, C channels, T latent frames, F frames of the
window, H and W latent rows and columns, S tokens of one frame, L = T * S, N text tokens, D width, E width of embedded
noise levels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.matrix.block import Block, Conditioning, ControlBlock, Streams, control_bias, modulate
from worldrt.export.families.matrix.positions import Positions
from worldrt.export.families.matrix.variants import PATCH, DiTConfig
from worldrt.export.modules.patches import patchify, unpatchify
from worldrt.export.modules.sinusoids import of_numbers
from worldrt.export.modules.tensors import cast

EPS = 1e-5


class Prepared(NamedTuple):
    """What the blocks work on: both streams, embedded noise levels, and of the controls their embeddings (B, F, D) and
    how visible they are, (T, S, F)."""

    streams: Streams
    cond: Conditioning
    control: Tensor
    control_bias: Tensor


class PatchEmbedding(nn.Module):
    """Latents and text to tokens of one width."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.positions = Positions(config.width, config.temporal_scale, config.spatial_scale)
        self.proj = nn.Conv2d(config.latent_channels, config.width, PATCH, stride=PATCH)
        self.text_proj = nn.Linear(config.text_width, config.width)

    def forward(
        self, x_BCTHW: Tensor, text_BNC: Tensor, position_T: Tensor, first_row_T: Tensor | None = None
    ) -> Streams:
        weight = self.proj.weight
        _, _, _, rows, columns = x_BCTHW.shape
        video = F.linear(patchify(cast(x_BCTHW, weight.dtype), PATCH), weight.flatten(1), self.proj.bias)
        by_frame, by_token = self.positions.tables(position_T, rows // PATCH, columns // PATCH, first_row_T)
        video = video + cast(by_frame, weight.dtype) + cast(by_token, weight.dtype)
        return Streams(video, self.text_proj(cast(text_BNC, weight.dtype)))


class TimeEmbedding(nn.Module):
    """Sinusoid of the timestep of each frame (cosines first), and two linear layers."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, time_width)
        self.linear_2 = nn.Linear(time_width, time_width)
        self.width = width

    def forward(self, timestep_BT: Tensor) -> Tensor:
        """(B, T, E); the sinusoid is float32."""
        sinusoid = cast(of_numbers(timestep_BT, self.width), self.linear_1.weight.dtype)
        embedded: Tensor = self.linear_2(F.silu(self.linear_1(sinusoid)))
        return embedded


class OutputNorm(nn.Module):
    """LayerNorm with the shift and scale of each frame."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.time_width, 2 * config.width)
        self.norm = nn.LayerNorm(config.width, eps=EPS)

    def forward(self, x_BTSD: Tensor, emb_BTE: Tensor) -> Tensor:
        shift, scale = self.linear(F.silu(emb_BTE)).unsqueeze(2).chunk(2, dim=-1)
        return modulate(self.norm(x_BTSD), shift, scale)


class DiT(nn.Module):
    """The network as the checkpoint defines it."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = PatchEmbedding(config)
        self.time_embedding = TimeEmbedding(width, config.time_width)
        self.control_embedding = nn.Sequential(
            nn.Linear(config.control_width, config.control_width),
            nn.SiLU(),
            nn.Linear(config.control_width, width),
            nn.SiLU(),
            nn.Linear(width, width),
        )
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.control_blocks = nn.ModuleList(
            ControlBlock(config) for _ in range(config.control_end - config.control_start)
        )
        self.norm_final = nn.LayerNorm(width, eps=EPS)
        self.norm_out = OutputNorm(config)
        self.proj_out = nn.Linear(width, config.latent_channels * PATCH * PATCH)

    def forward(
        self, x_BCTHW: Tensor, timestep_BT: Tensor, text_BNC: Tensor, control_BFC: Tensor, position_T: Tensor
    ) -> Tensor:
        """v (B, C, T, H, W) in the compute dtype (that of the weights)."""
        prepared = self.prepare(x_BCTHW, timestep_BT, timestep_BT[:, -1:], text_BNC, control_BFC, position_T)
        streams, cond = prepared.streams, prepared.cond
        for number, block in enumerate(self.transformer_blocks):
            streams = block(streams, cond)
            if self.config.has_control(number):
                control = self.control_blocks[number - self.config.control_start]
                video = control(streams.video, prepared.control, cond, prepared.control_bias)
                streams = Streams(video, streams.text)
        return self.finish(streams.video, cond.emb, x_BCTHW.shape[3] // PATCH, x_BCTHW.shape[4] // PATCH)

    def prepare(
        self,
        x_BCTHW: Tensor,
        timestep_BT: Tensor,
        last_timestep_B1: Tensor,
        text_BNC: Tensor,
        control_BFC: Tensor,
        position_T: Tensor,
        row_T2: Tensor | None = None,
    ) -> Prepared:
        """Everything before the first block. The last timestep is that of the window, of which x may be a part. Where
        frames are parts of others, `row` holds the first of their rows, and the rows of the whole."""
        streams = self.patch_embed(x_BCTHW, text_BNC, position_T, None if row_T2 is None else row_T2[:, 0])
        emb = self.time_embedding(torch.cat([timestep_BT, last_timestep_B1], dim=1))
        control = self.control_embedding(cast(control_BFC, streams.video.dtype))
        place = None if row_T2 is None else row_T2 * (x_BCTHW.shape[4] // PATCH)
        bias = control_bias(position_T, streams.video.shape[2], control_BFC.shape[1], place)
        return Prepared(streams, Conditioning(emb[:, :-1], emb[:, -1:]), control, bias)

    def finish(self, x_BTSD: Tensor, emb_BTE: Tensor, rows: int, columns: int) -> Tensor:
        """Tokens back to latents (B, C, T, 2 rows, 2 columns)."""
        patches = self.proj_out(self.norm_out(self.norm_final(x_BTSD), emb_BTE))
        return unpatchify(patches, rows, columns, PATCH, channels_last=False)
