"""Temporal and cross-view blocks in two halves, cut before attention, which is all that frames and views see of each
other.

Keys and values of a temporal block have the frames first, (T, 2, B, V, S, D), those of a cross-view block the views,
(V, 2, B, T, S, D): gathering those of other devices is one contiguous copy. Queries are (B, T, V, S, D), of the frames
and views that a device has itself.

Shape letters: B batch, T frames, V views, S tokens of one picture, D width; F and W all frames and views that are
looked at; h and w rows and columns of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldrt.export.families.opendwm.block import IndexEmbedding, Mixer, SequenceBlock
from worldrt.export.modules.sinusoids import of_numbers
from worldrt.export.modules.tensors import cast


class Before(nn.Module):
    """The first half; the places that `numbers` count lie along `axis` of hidden states, 1 for frames, 2 for views."""

    def __init__(self, embed: IndexEmbedding, block: SequenceBlock, axis: int) -> None:
        super().__init__()
        self.embed, self.block, self.axis = embed, block, axis

    def forward(self, hidden: Tensor, camera_hidden: Tensor, numbers: Tensor) -> tuple[Tensor, ...]:
        """seen, q, kv"""
        sinusoids = cast(of_numbers(numbers, hidden.shape[-1]), hidden.dtype)
        place = self.embed(sinusoids).unflatten(0, (-1, *(1,) * (3 - self.axis)))
        seen, q, k, v = self.block.before(hidden + (place + camera_hidden))
        return seen, q, torch.stack([k, v]).movedim(1 + self.axis, 0)


class InTime(nn.Module):
    """The second half of a temporal block."""

    def __init__(self, block: SequenceBlock, mixer: Mixer) -> None:
        super().__init__()
        self.block, self.mixer = block, mixer

    def forward(self, hidden: Tensor, seen: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        queries = q.permute(0, 2, 3, 1, 4)  # B V S T D
        k, v = kv.permute(1, 2, 3, 4, 0, 5).flatten(1, 3).unbind(0)
        made = self.block.attn1.look(queries.flatten(0, 2), k, v).view(queries.shape)
        out: Tensor = self.mixer(hidden, self.block.after(seen, made.permute(0, 3, 1, 2, 4)), None)
        return out


class AcrossViews(nn.Module):
    """The second half of a cross-view block; `columns` are those of a picture's tokens."""

    def __init__(self, block: SequenceBlock, mixer: Mixer, columns: int) -> None:
        super().__init__()
        self.block, self.mixer, self.columns = block, mixer, columns

    def forward(self, hidden: Tensor, seen: Tensor, q: Tensor, view_kv: Tensor) -> Tensor:
        queries = torch.unflatten(q, 3, (-1, self.columns)).permute(0, 1, 3, 2, 4, 5)  # B T h V w D
        parts = torch.unflatten(view_kv, 4, (-1, self.columns)).permute(1, 2, 3, 4, 0, 5, 6)  # 2 B T h W w D
        k, v = parts.flatten(4, 5).flatten(1, 3).unbind(0)
        made = self.block.attn1.look(queries.flatten(3, 4).flatten(0, 2), k, v).view(queries.shape)
        back = made.permute(0, 1, 3, 2, 4, 5).flatten(3, 4)
        out: Tensor = self.mixer(hidden, self.block.after(seen, back), None)
        return out
