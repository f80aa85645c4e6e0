"""The diffusion transformer of OpenDWM: that of Stable Diffusion 3.5 on every picture, and between its blocks others
that let frames and views see each other. It predicts the velocity of flow matching; `denoiser.py` makes that x0.

Parameters have the names of official checkpoints. Shape letters: B batch, C latent channels, T frames, V views, H and W
latent rows and columns, S tokens of a picture, L text tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.opendwm.block import (
    UNSEEN,
    IndexEmbedding,
    JointBlock,
    Mixer,
    Modulation,
    SequenceBlock,
    Streams,
    modulate,
)
from worldrt.export.families.opendwm.variants import CAMERA, PATCH, DiTConfig
from worldrt.export.modules.patches import patchify, unpatchify
from worldrt.export.modules.sinusoids import of_numbers, of_places
from worldrt.export.modules.tensors import cast

SINUSOIDS = 256


class Conditioning(NamedTuple):
    """What blocks know besides hidden states: embedded noise levels and pooled text (B, T, V, D), cameras (B, T, V,
    1, D), the numbers of slots (T,) and views (V,), float32."""

    emb: Tensor
    camera: Tensor
    position: Tensor
    view: Tensor


@dataclass(frozen=True)
class Switches:
    """What official training data turn off: cross-view or temporal blocks for some clips (B,), 1 is off; and which
    views (B, V, V) may look at which, 1 is yes."""

    no_crossview: Tensor | None = None
    no_temporal: Tensor | None = None
    crossview_mask: Tensor | None = None


class Embedder(nn.Module):
    """`time_text_embed` of checkpoints: the noise level and the pooled text of each picture."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.timestep_embedder = IndexEmbedding(SINUSOIDS, config.width, config.width)
        self.text_embedder = IndexEmbedding(config.pooled_width, config.width, config.width)

    def forward(self, timestep_BTV: Tensor, pooled_BTVP: Tensor) -> Tensor:
        dtype = self.timestep_embedder.linear_1.weight.dtype
        level = self.timestep_embedder(cast(of_numbers(timestep_BTV, SINUSOIDS), dtype))
        out: Tensor = level + self.text_embedder(cast(pooled_BTVP, dtype))
        return out


class PatchEmbedding(nn.Module):
    """Latents to tokens, with the place of each token in the middle of a square of `position_grid`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.latent_channels, config.width, PATCH, stride=PATCH)
        self.config = config

    def forward(self, x_BCTVHW: Tensor) -> Tensor:
        """(B, T, V, S, D)"""
        weight = self.proj.weight
        patches = patchify(cast(x_BCTVHW.flatten(2, 3), weight.dtype), PATCH)
        tokens = torch.unflatten(F.linear(patches, weight.flatten(1), self.proj.bias), 1, x_BCTVHW.shape[2:4])
        rows, columns = (x_BCTVHW.shape[axis] // PATCH for axis in (4, 5))
        row, column = (self._places(count, x_BCTVHW.device) for count in (rows, columns))
        half = self.config.width // 2
        # half of the channels for columns, then half for rows; sines first
        table = torch.cat(
            [column.unsqueeze(0).expand(rows, columns, half), row.unsqueeze(1).expand(rows, columns, half)], dim=-1
        )
        return tokens + cast(table.flatten(0, 1), weight.dtype)

    def _places(self, count: int, device: torch.device) -> Tensor:
        grid = self.config.position_grid
        first = (grid - count) // 2
        place = (torch.arange(count, device=device) + first).to(torch.float32) * (self.config.position_base / grid)
        return of_places(place, self.config.width // 2)


class DiT(nn.Module):
    """The network as the checkpoint defines it, without its image adapter."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.pos_embed = PatchEmbedding(config)
        self.context_embedder = nn.Linear(config.text_width, width)
        self.time_text_embed = Embedder(config)
        self.view_embedding = IndexEmbedding(CAMERA * SINUSOIDS, width, width)
        self.transformer_blocks = nn.ModuleList(
            JointBlock(config, dual=i in config.dual, last=i == config.layers - 1) for i in range(config.layers)
        )
        self.time_pos_embeds, self.temporal_transformer_blocks, self.time_mixers = _between(config, config.temporal)
        self.view_pos_embeds, self.crossview_transformer_blocks, self.view_mixers = _between(config, config.crossview)
        self.norm_out = Modulation(width, 2)
        self.proj_out = nn.Linear(width, PATCH * PATCH * config.latent_channels)

    def forward(
        self,
        x_BCTVHW: Tensor,
        timestep_BTV: Tensor,
        text_BTVLC: Tensor,
        pooled_BTVP: Tensor,
        camera_BTVK: Tensor,
        residual_BTRVSD: Tensor,
        position_T: Tensor,
        view_V: Tensor,
        switches: Switches | None = None,
    ) -> Tensor:
        """Velocity (B, C, T, V, H, W) in the compute dtype (that of the weights)."""
        streams, emb, camera = self.prepare(x_BCTVHW, timestep_BTV, text_BTVLC, pooled_BTVP, camera_BTVK)
        cond = Conditioning(emb, camera, position_T, view_V)
        switches, columns = switches or Switches(), x_BCTVHW.shape[5] // PATCH
        for number, block in enumerate(self.transformer_blocks):
            if number < self.config.stages:
                streams = Streams(self.add(streams.hidden, residual_BTRVSD[:, :, number]), streams.text)
            streams = block(streams, cond.emb)
            hidden = streams.hidden
            if number in self.config.temporal:
                hidden = self.temporal(self.config.temporal.index(number), hidden, cond, switches.no_temporal)
            if number in self.config.crossview:
                index = self.config.crossview.index(number)
                off, mask = switches.no_crossview, switches.crossview_mask
                hidden = self.crossview(index, hidden, cond, columns, off, mask)
            streams = Streams(hidden, streams.text)
        return self.finish(streams.hidden, cond.emb, x_BCTVHW)

    def prepare(
        self,
        x_BCTVHW: Tensor,
        timestep_BTV: Tensor,
        text_BTVLC: Tensor,
        pooled_BTVP: Tensor,
        camera_BTVK: Tensor,
    ) -> tuple[Streams, Tensor, Tensor]:
        """Everything before the first block: hidden states, and what `Conditioning` calls `emb` and `camera`."""
        dtype = self.context_embedder.weight.dtype
        text = self.context_embedder(cast(text_BTVLC, dtype))
        emb = self.time_text_embed(timestep_BTV, pooled_BTVP)
        camera = self.view_embedding(cast(of_numbers(camera_BTVK, SINUSOIDS).flatten(3), dtype)).unsqueeze(3)
        return Streams(self.pos_embed(x_BCTVHW), text), emb, camera

    def add(self, hidden: Tensor, residual_BTVSD: Tensor) -> Tensor:
        """The residual of one stage."""
        return hidden + cast(residual_BTVSD, hidden.dtype)

    def temporal(self, index: int, hidden: Tensor, cond: Conditioning, off_B: Tensor | None = None) -> Tensor:
        """Attention of each token over the frames; temporal block number `index`."""
        embedded = self._numbers(self.time_pos_embeds[index], cond.position)[:, None, None, :]
        seen = (hidden + (embedded + cond.camera)).permute(0, 2, 3, 1, 4)
        made = self.temporal_transformer_blocks[index](seen.flatten(0, 2))
        back = made.view(seen.shape).permute(0, 3, 1, 2, 4)
        out: Tensor = self.time_mixers[index](hidden, back, off_B)
        return out

    def crossview(
        self,
        index: int,
        hidden: Tensor,
        cond: Conditioning,
        columns: int,
        off_B: Tensor | None = None,
        mask_BVV: Tensor | None = None,
    ) -> Tensor:
        """Attention of each row of tokens over the same row in all views; cross-view block number `index`."""
        embedded = self._numbers(self.view_pos_embeds[index], cond.view)[:, None, :]
        seen = torch.unflatten(hidden + (embedded + cond.camera), 3, (-1, columns)).permute(0, 1, 3, 2, 4, 5)
        batch, frames, rows, views = seen.shape[:4]
        bias = None
        if mask_BVV is not None:
            of_views = ((1 - mask_BVV) * UNSEEN)[:, None, None, :, None, :, None]
            whole = (batch, frames, rows, views, columns, views, columns)
            bias = cast(of_views.expand(whole).flatten(5, 6).flatten(3, 4).flatten(0, 2).unsqueeze(1), seen.dtype)
        made = self.crossview_transformer_blocks[index](seen.flatten(3, 4).flatten(0, 2), bias)
        back = made.view(seen.shape).permute(0, 1, 3, 2, 4, 5).flatten(3, 4)
        out: Tensor = self.view_mixers[index](hidden, back, off_B)
        return out

    def finish(self, hidden: Tensor, emb_BTVD: Tensor, x_BCTVHW: Tensor) -> Tensor:
        """Tokens back to latents, shaped as x."""
        normed, (scale, shift) = self.norm_out(hidden, emb_BTVD)
        patches = self.proj_out(modulate(normed, shift, scale)).flatten(1, 2)
        rows, columns = (x_BCTVHW.shape[axis] // PATCH for axis in (4, 5))
        latents = unpatchify(patches, rows, columns, PATCH, channels_last=True)
        return torch.unflatten(latents, 2, x_BCTVHW.shape[2:4])

    def _numbers(self, embed: nn.Module, numbers: Tensor) -> Tensor:
        """(n, D) of slot or view numbers."""
        made: Tensor = embed(cast(of_numbers(numbers, self.config.width), self.context_embedder.weight.dtype))
        return made


def _between(config: DiTConfig, layers: tuple[int, ...]) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
    """The embeddings, blocks and mixers behind some layers."""
    width = config.width
    return (
        nn.ModuleList(IndexEmbedding(width, 4 * width, width) for _ in layers),
        nn.ModuleList(SequenceBlock(config) for _ in layers),
        nn.ModuleList(Mixer() for _ in layers),
    )
