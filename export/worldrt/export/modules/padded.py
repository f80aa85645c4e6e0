"""Prompts with their padding, which takes part as in training where no mask was given."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.graphs import GraphSource
from worldrt.export.modules.keys import text_keys
from worldrt.export.modules.t5 import T5Config, T5Encoder

IDS = TensorSpec("ids", "int64", ("batch", "text"))
MASK = TensorSpec("mask", "float32", ("batch", "text"))


def pad_ids(ids_BN: Tensor, mask_BN: Tensor, tokens: int, padding: int) -> Tensor:
    """Ids (B, tokens): int64 ids, at most `tokens` of them, where the mask is 1, and `padding` elsewhere."""
    known = mask_BN.to(ids_BN.dtype)
    kept = ids_BN * known + padding * (1 - known) if padding else ids_BN * known
    return F.pad(kept, (0, tokens - kept.shape[1]), value=padding)


class PaddedEncoder(nn.Module):
    """T5: token ids to float32 embeddings (B, tokens, D). No token is hidden from another."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.t5 = T5Encoder(config)

    def forward(self, ids_BN: Tensor, mask_BN: Tensor) -> Tensor:
        """int64 ids, at most `tokens` of them, and a float32 mask: 0 makes an id padding, which is 0."""
        text: Tensor = self.t5(pad_ids(ids_BN, mask_BN, self.config.tokens, 0))
        return text


def encode_graph(config: T5Config, dtype: str = "float32", device: str = "meta") -> GraphSource:
    """`encode`: ids and mask to text embeddings."""
    kind: Any = getattr(torch, dtype)
    with torch.device(device):
        encoder = PaddedEncoder(config).to(kind)
    text = TensorSpec("text", "float32", ("batch", config.tokens, config.width))
    keys = text_keys(config.gated)
    weights = {name: keys.key(name.removeprefix("t5."), "diffusers") for name, _ in encoder.named_parameters()}
    return GraphSource("encode", encoder, (IDS, MASK), (text,), weights)
