"""What the denoiser's graph is linked from: modules that are traced once each, however many layers there are.

denoise   First  ((Add)  Joint  (Temporal)  (CrossView)) x layers  Last
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.families.opendwm.block import JointBlock, Streams
from worldrt.export.families.opendwm.denoiser import of_views, to_x0
from worldrt.export.families.opendwm.dit import Conditioning, DiT
from worldrt.export.families.opendwm.graphs import View
from worldrt.export.families.opendwm.variants import DiTConfig
from worldrt.export.graphs import GraphSource, renamed
from worldrt.export.link import Segment


class First(nn.Module):
    """Latents, text and cameras to what the blocks work on."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, x: Tensor, level: Tensor, text: Tensor, pooled: Tensor, camera: Tensor) -> tuple[Tensor, ...]:
        """hidden, text_hidden, emb, camera_hidden"""
        streams, emb, camera_hidden = self.dit.prepare(x, of_views(level, pooled), text, pooled, camera)
        return *streams, emb, camera_hidden


class Add(nn.Module):
    """The residual of stage number `index`."""

    def __init__(self, dit: DiT, index: int) -> None:
        super().__init__()
        self.index = index
        self.add = dit.add

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.add(hidden, residual[:, :, self.index])


class Joint(nn.Module):
    """One joint block."""

    def __init__(self, block: JointBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden: Tensor, text_hidden: Tensor, emb: Tensor) -> tuple[Tensor, ...]:
        made: Streams = self.block(Streams(hidden, text_hidden), emb)
        return made


class Temporal(nn.Module):
    """One temporal block."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, hidden: Tensor, camera_hidden: Tensor, position: Tensor) -> Tensor:
        return self.dit.temporal(0, hidden, Conditioning(hidden, camera_hidden, position, position))


class CrossView(nn.Module):
    """One cross-view block."""

    def __init__(self, dit: DiT, columns: int) -> None:
        super().__init__()
        self.dit, self.columns = dit, columns

    def forward(self, hidden: Tensor, camera_hidden: Tensor, view: Tensor) -> Tensor:
        return self.dit.crossview(0, hidden, Conditioning(hidden, camera_hidden, view, view), self.columns)


class Last(nn.Module):
    """Tokens to x0."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, hidden: Tensor, emb: Tensor, x: Tensor, level: Tensor) -> Tensor:
        return to_x0(self.dit.finish(hidden, emb, x), x, level)


class Segments:
    """Makes the segments of one denoiser. What is traced of it does not depend on its depth."""

    def __init__(self, config: DiTConfig, view: View, dtype: str) -> None:
        self.config, self.view, self.dtype = config, view, dtype
        self.shallow = replace(config, layers=1, dual=(), temporal=(0,), crossview=(0,))
        kind = getattr(torch, dtype)
        with torch.device("meta"):
            self.dit = DiT(self.shallow).to(kind)
            self.joints = {
                (dual, last): JointBlock(config, dual=dual, last=last).to(kind)
                for dual in (False, True)
                for last in (False, True)
            }

    def of(self, graph: GraphSource) -> list[Segment]:
        """What `worldrt.export.link` makes a graph from; `layout` and those of the block form, which have a layer each,
        are traced as they are."""
        return list(self._whole(graph)) if graph.name == "denoise" else []

    def _whole(self, graph: GraphSource) -> Iterator[Segment]:
        config, specs = self.config, self._specs(graph)
        yield self._segment(First(self.dit), "x level text pooled camera", _STATE, specs, {"dit.": ""})
        for i in range(config.layers):
            if i < config.stages:
                yield self._segment(Add(self.dit, i), "hidden residual", "hidden", specs, {}, i, key=i)
            kind = (i in config.dual, i == config.layers - 1)
            block = Joint(self.joints[kind])
            names = {"block.": f"transformer_blocks.{i}."}
            # the text stays what it was behind the last one
            text = "hidden text_hidden"
            yield self._segment(block, "hidden text_hidden emb", text, specs, names, i, key=kind)
            if i in config.temporal:
                names = _numbered("time_pos_embeds temporal_transformer_blocks time_mixers", config.temporal.index(i))
                yield self._segment(Temporal(self.dit), "hidden camera_hidden position", "hidden", specs, names, i)
            if i in config.crossview:
                names = _numbered("view_pos_embeds crossview_transformer_blocks view_mixers", config.crossview.index(i))
                yield self._segment(
                    CrossView(self.dit, self.view.columns), "hidden camera_hidden view", "hidden", specs, names, i
                )
        yield self._segment(Last(self.dit), "hidden emb x level", "x0", specs, {"dit.": ""})

    def _segment(
        self,
        module: nn.Module,
        inputs: str,
        outputs: str,
        specs: dict[str, TensorSpec],
        names: dict[str, str],
        layer: int = 0,
        *,
        key: object = None,
    ) -> Segment:
        """`names`: how parameters of the module begin, and how those of the graph do."""
        ins, outs = (tuple(specs[name] for name in line.split()) for line in (inputs, outputs))
        keys = renamed(module, names | {"": ""})
        weights = {name: f"dit.{key}" for name, key in keys.items()}
        source = GraphSource(type(module).__name__.lower(), module, ins, outs, weights)
        return Segment(source, (source.name, self.shallow, self.view, self.dtype, key), first=layer)

    def _specs(self, graph: GraphSource) -> dict[str, TensorSpec]:
        """Those of the whole graph, and what passes between segments."""
        width, dtype = self.config.width, self.dtype
        of_view = ("batch", "frames", self.view.count)
        between: dict[str, tuple[int | str, ...]] = {
            "hidden": (*of_view, self.view.tokens, width),
            "text_hidden": (*of_view, "text", width),
            "emb": (*of_view, width),
            "camera_hidden": (*of_view, 1, width),
        }
        own = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
        return own | {name: TensorSpec(name, dtype, shape) for name, shape in between.items()}


_STATE = "hidden text_hidden emb camera_hidden"


def _numbered(lists: str, index: int) -> dict[str, str]:
    """Parameters of the first entries of some lists as those of entry number `index`."""
    return {f"dit.{name}.0.": f"{name}.{index}." for name in lists.split()}
