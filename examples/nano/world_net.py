"""The networks of the Matrix nano in training: its transformer, its text encoder, and what they see of controls."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from checkpoint import averaged
from torch import Tensor, nn

from worldrt.export.families.matrix.control import SYMBOLS
from worldrt.export.families.matrix.dit import DiT
from worldrt.export.families.matrix.variants import NANO, Variant, variant
from worldrt.export.modules.nano_tokenizer import train as make_tokenizer
from worldrt.export.modules.padded import PaddedEncoder

MODEL = variant(NANO)


class Models(nn.Module):
    """The transformer, the text encoder that it learns to understand, and what it sees of each control."""

    table: Tensor

    def __init__(self, model: Variant) -> None:
        super().__init__()
        self.text, self.dit = PaddedEncoder(model.t5), DiT(model.dit)
        self.register_buffer("table", control_table(model.dit.control_width))
        nn.init.normal_(self.text.t5.embedding.weight, std=1.0)
        nn.init.normal_(self.text.t5.position_bias.weight, std=0.02)
        nn.init.zeros_(self.dit.proj_out.weight)
        for name, parameter in self.dit.named_parameters():
            if name.endswith(("norm1.linear.weight", "norm2.linear.weight", "norm_out.linear.weight")):
                nn.init.zeros_(parameter)

    def read(self, prompts: list[list[int]]) -> Tensor:
        """Text rows (B, tokens, width) of token ids."""
        ids = torch.zeros(len(prompts), self.text.config.tokens, dtype=torch.int64)
        mask = torch.zeros(ids.shape)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
        rows: Tensor = self.text(ids, mask)
        return rows

    def velocity(self, x_BCTHW: Tensor, level_BT: Tensor, text: Tensor, control_BT: Tensor) -> Tensor:
        """v of windows, after rows of text; controls are numbers of symbols."""
        position = torch.arange(x_BCTHW.shape[2], dtype=torch.float32)
        made: Tensor = self.dit(x_BCTHW, level_BT, text, self.table[control_BT], position)
        return made


def load(run: Path) -> Models:
    """The averaged weights of a run."""
    models = Models(MODEL)
    models.load_state_dict(averaged(run))
    return models


def control_table(width: int) -> Tensor:
    """(symbols, width): seeded and random for straight on, left, right and rolling, which the world knows. Going back
    is taken for rolling, and a turn is a turn at any speed."""
    found = torch.randn(len(SYMBOLS), width, generator=torch.Generator().manual_seed(0))
    for number, symbol in enumerate(SYMBOLS):
        same = {"B": "N", "BL": "DL", "NL": "DL", "BR": "DR", "NR": "DR"}.get(symbol, symbol)
        found[number] = found[SYMBOLS.index(same)]
    return found


@cache
def ids(text: str) -> list[int]:
    """Of the tokens of a prompt."""
    found: list[int] = _tokenizer().encode(text).ids
    return found


@cache
def _tokenizer() -> Any:
    return make_tokenizer(MODEL.t5.vocabulary)
