"""The text encoder as The Matrix uses it: T5 over the prompt and its padding, which takes part as in training."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.modules.t5 import T5Config, T5Encoder

PADDING_ID = 0


class PaddedEncoder(nn.Module):
    """Token ids to float32 embeddings (B, tokens, D). Ids are padded to the model's number of tokens, and no token is
    hidden from another."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.t5 = T5Encoder(config)

    def forward(self, ids_BN: Tensor, mask_BN: Tensor) -> Tensor:
        """int64 ids, at most `tokens` of them, and a float32 mask: 0 makes an id padding."""
        known = ids_BN * mask_BN.to(ids_BN.dtype) + PADDING_ID
        ids = F.pad(known, (0, self.config.tokens - known.shape[1]), value=PADDING_ID)
        text: Tensor = self.t5(ids)
        return text
