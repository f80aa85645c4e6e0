"""One transformer that makes pictures and videos: text2image and video2world are two readings of the same weights.

A picture is a video of one latent of which nothing is known. The video network has one channel more, the mask of known
latents; where it is zero its weights do not matter, and text2image is the network without them. So everything that is
learned from pictures, which cost a fifth, serves videos too.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import torch.onnx.ops
from torch import Tensor, nn

from worldrt.export.families.cosmos.block import CrossAttention, Rest
from worldrt.export.families.cosmos.dit import DiT
from worldrt.export.families.cosmos.variants import PATCH, DiTConfig, Variant, variant
from worldrt.export.modules.attention import split_heads
from worldrt.export.modules.t5 import T5Encoder


class Models(nn.Module):
    """The transformer, and the text encoder that it learns to understand."""

    def __init__(self, model: Variant | None = None) -> None:
        super().__init__()
        model = model or variant("nano", "video2world")
        self.tokens = model.t5.tokens
        self.text, self.dit = T5Encoder(model.t5), DiT(model.dit)
        for module in self.dit.modules():
            if isinstance(module, Rest):
                module.cross_attention = ShortText(model.dit, self.tokens)
        _begin(self)

    def read(self, prompts: list[list[int]]) -> Tensor:
        """Text rows (B, N, width) of token ids, as long as the longest prompt, zero behind each."""
        ids, mask = (torch.zeros(len(prompts), max(map(len, prompts)), dtype=d) for d in (torch.int64, torch.float32))
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
        rows: Tensor = self.text(ids, mask)
        return rows


class ShortText(CrossAttention):
    """What the network computes from a text that is padded to `tokens` rows of zeros, for the price of one such row.

    A row of zeros has zero as its key and value: n of them count as one whose weight is n times as large.
    """

    def __init__(self, config: DiTConfig, tokens: int) -> None:
        super().__init__(config)
        self.tokens = tokens

    def forward(self, x_BLD: Tensor, text_BNC: Tensor) -> Tensor:
        text = F.pad(text_BNC, (0, 0, 0, 1))
        q = self.norm_q(split_heads(self.to_q(x_BLD), self.heads))
        k = self.norm_k(split_heads(self.to_k(text), self.heads))
        v = split_heads(self.to_v(text), self.heads)
        more = torch.zeros(text.shape[1])
        more[-1] = math.log(self.tokens - text_BNC.shape[1])
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=more.expand(1, 1, q.shape[2], -1))
        made: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return made


def picture_weights(weights: dict[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """Weights of the text2image network: those of the video network `config` without its mask channel."""
    name, area = "stem.patch.weight", PATCH * PATCH
    patch = torch.unflatten(weights[name], 1, (config.patch_channels, area))
    kept = [channel for channel in range(config.patch_channels) if channel != config.latent_channels]
    return weights | {name: patch[:, kept].flatten(1)}


def teach_rotary_gradient() -> None:
    """The operator that exports as RotaryEmbedding has no gradient: it is the turn back."""

    def keep(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])

    def back(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return torch.onnx.ops.rotary_embedding(gradient.contiguous(), cos, -sin), None, None, None

    torch.library.register_autograd("onnx::RotaryEmbedding.opset23", back, setup_context=keep)


def _begin(models: Models) -> None:
    """Weights to start from: as torch has them, but what blocks add begins at nothing."""
    nn.init.normal_(models.text.embedding.weight, std=1.0)
    nn.init.normal_(models.text.position_bias.weight, std=0.02)
    nn.init.zeros_(models.dit.final.linear.weight)
    for name, parameter in models.dit.named_parameters():
        if name.endswith("modulation.up.weight"):
            nn.init.zeros_(parameter)
