"""The Cosmos-Predict2 diffusion transformer: stem, blocks, final layer. (NVIDIA, arXiv 2501.03575, and its second
release.) It predicts the flow velocity from scaled latents; `denoiser.py` wraps it into a clean-latent predictor.

Shape letters: B batch, C channels, T latent frames, H and W latent rows and columns, D width; see `block.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.cosmos.block import EPS, Block, Conditioning, Modulation, modulate
from worldrt.export.families.cosmos.rope import Rope, RopeDtype, RopeTables
from worldrt.export.families.cosmos.variants import PATCH, DiTConfig
from worldrt.export.modules.patches import patchify, unpatchify
from worldrt.export.modules.tensors import cast


class TimeEmbedding(nn.Module):
    """Sinusoid of the timestep of each frame (cosines first), and its two products that modulate every layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=EPS)
        self.linear_1 = nn.Linear(width, width, bias=False)
        self.linear_2 = nn.Linear(width, 3 * width, bias=False)

    def forward(self, timestep_BT: Tensor) -> Conditioning:
        """The timestep is rounded to the compute dtype first, as official pipelines do; the sinusoid is float32."""
        weight = self.linear_1.weight
        dtype, half = weight.dtype, weight.shape[0] // 2
        index = torch.arange(half, dtype=torch.float32, device=timestep_BT.device)
        frequencies = torch.exp(index * (-math.log(10000.0) / half))
        angles = cast(cast(timestep_BT, dtype), torch.float32).unsqueeze(-1) * frequencies
        sinusoid = cast(torch.cat([angles.cos(), angles.sin()], dim=-1), dtype)
        return Conditioning(self.norm(sinusoid), self.linear_2(F.silu(self.linear_1(sinusoid))))


class Stem(nn.Module):
    """Latents to tokens, timesteps to conditioning, positions to RoPE tables."""

    def __init__(self, config: DiTConfig, rope_dtype: RopeDtype = "float32") -> None:
        super().__init__()
        self.config = config
        self.rope = Rope(config.head_dim, config.rope_ratio, rope_dtype)
        self.patch = nn.Linear(config.patch_channels * PATCH * PATCH, config.width, bias=False)
        self.time = TimeEmbedding(config.width)

    def forward(
        self,
        x_BCTHW: Tensor,
        timestep_BT: Tensor,
        position_T: Tensor,
        mask_BT: Tensor | None = None,
        padding_mask: Tensor | None = None,
        first_row_T: Tensor | None = None,
    ) -> tuple[Tensor, Conditioning, RopeTables]:
        """Tokens (B, T, S, D), conditioning and RoPE tables. Frames that are parts of others begin at `first_row`.

        `padding_mask` (B, 1, 8 H, 8 W) is 1 outside of the picture. Pictures fill their frame at inference, so it is
        left out, and with it the last columns of the patch weight.
        """
        _, _, frames, rows, columns = x_BCTHW.shape
        dtype = self.patch.weight.dtype
        channels = [cast(x_BCTHW, dtype)]
        if mask_BT is not None:
            channels.append(cast(mask_BT, dtype)[:, None, :, None, None].expand(-1, 1, -1, rows, columns))
        if padding_mask is not None:
            padding = F.interpolate(cast(padding_mask, dtype), size=(rows, columns), mode="nearest")
            channels.append(padding.unsqueeze(2).expand(-1, 1, frames, -1, -1))
        patches = patchify(torch.cat(channels, dim=1) if len(channels) > 1 else channels[0], PATCH)
        tokens = F.linear(patches, self.patch.weight[:, : patches.shape[-1]])
        tables = self.rope.tables(position_T, rows // PATCH, columns // PATCH, first_row_T)
        return tokens, self.time(timestep_BT), tables


class FinalLayer(nn.Module):
    """Tokens back to latents."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.modulation = Modulation(config, parts=2)
        self.linear = nn.Linear(config.width, config.latent_channels * PATCH * PATCH, bias=False)

    def forward(self, x_BTSD: Tensor, cond: Conditioning, rows: int, columns: int) -> Tensor:
        """(B, C, T, 2 rows, 2 columns)"""
        shift, scale = self.modulation(cond)
        return unpatchify(self.linear(modulate(x_BTSD, shift, scale)), rows, columns, PATCH, channels_last=True)


class DiT(nn.Module):
    """The network as the checkpoint defines it."""

    def __init__(self, config: DiTConfig, rope_dtype: RopeDtype = "float32") -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config, rope_dtype)
        self.blocks = nn.ModuleList(Block(config, window) for window in config.block_windows())
        self.final = FinalLayer(config)

    def block(self, number: int) -> Block:
        """Block `number`, counted from 0, or from the end if negative."""
        block = self.blocks[number]
        assert isinstance(block, Block)
        return block

    def forward(
        self,
        x_BCTHW: Tensor,
        timestep_BT: Tensor,
        text_BNC: Tensor,
        position_T: Tensor,
        mask_BT: Tensor | None = None,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Flow velocity (B, C, T, H, W) in the compute dtype (that of the weights)."""
        hidden, cond, tables = self.stem(x_BCTHW, timestep_BT, position_T, mask_BT, padding_mask)
        text = cast(text_BNC, hidden.dtype)
        cos, sin = for_batch(tables, hidden.shape[0])
        for block in self.blocks:
            hidden = block(hidden, text, cond, cos, sin)
        _, _, _, rows, columns = x_BCTHW.shape
        velocity: Tensor = self.final(hidden, cond, rows // PATCH, columns // PATCH)
        return velocity


def for_batch(tables: RopeTables, batch: int) -> tuple[Tensor, Tensor]:
    """Tables (T, S, F) as the rotary operator wants them: (B, L, F)."""
    cos, sin = (table.flatten(0, 1).unsqueeze(0).expand(batch, -1, -1) for table in tables)
    return cos, sin
