"""What a bundle is made of: graphs, and the components that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from worldrt.engine.facts import Chunk, Condition, Control, Diffusion, Guidance, Layout, Place, Sampler, Sparse, Stream
from worldrt.engine.quality import Quality
from worldrt.engine.tensors import SymbolicShape, TensorSpec

Precision = Literal["float32", "float16", "bfloat16"]
Quantization = Literal["int8", "fp8", "int8_static", "mxfp8", "nvfp4"]


@dataclass(frozen=True)
class Weight:
    """A checkpoint tensor that a graph uses: as the graph input `name`, or as an initializer by external data.

    `key` may hold `{i}`, `{j}` and `{i-15}`: block number i, j = i + 1 and i - 15 of an instance of a block graph; or a
    list such as `{,1,,3}`: its entry i.
    """

    name: str
    key: str
    dtype: str
    shape: SymbolicShape


@dataclass(frozen=True)
class Graph:
    """One ONNX file with its inputs, outputs and weights. `program` is a saved torch program of the same graph."""

    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights_as: Literal["inputs", "external"]
    weights: tuple[Weight, ...]
    program: str | None = None


@dataclass(frozen=True)
class Component:
    """What all components share: their graphs, compute precision, and weight files relative to the weight root."""

    precision: Precision
    files: tuple[str, ...]
    graphs: Mapping[str, Graph]

    def instances(self, graph: str) -> Sequence[int]:
        """The numbers of the blocks that a graph is run for; (0,) where it is run once."""
        return (0,)


@dataclass(frozen=True)
class Denoiser(Component):
    """A diffusion transformer. `whole`: one graph `denoise`. `block`: `embed`, `block` (blocks - 1 instances), `head`;
    a `sparse` one has a `block_WINDOW` for each kind of window instead, and takes clips of two latent frames or more;
    one with `control` has `block` and `block_control`; `chain` names the graph of each block where there are others.

    Levels are sigmas, or with `diffusion` timesteps. With `levels` they are part of the graph, one for each frame of
    its window, and it has no input `level`.

    `quantization`: linear layers are of this kind. The weights of `int8` (at run time, for CPUs) lie in the .onnx file
    and not among `weights`; the others (for engines) quantise those of the checkpoint inside the graph.
    `quality` is what that was measured to do. In block form the scales of all instances are weights of `block` too:
    they lie in `scales`, a safetensors file of the bundle itself.

    `sizes`: resolution -> aspect ratio -> (width, height) in pixels. `frames`: fps -> number of pixel frames.
    """

    form: Literal["whole", "block"]
    blocks: int
    conditions: Mapping[str, Condition]
    sampler: Sampler
    guidance: Guidance
    sizes: Mapping[str, Mapping[str, tuple[int, int]]]
    frames: Mapping[str, int]
    size_multiple_px: int = 16
    quantization: Quantization | None = None
    quality: Quality | None = None
    scales: str | None = None
    sparse: Sparse | None = None
    diffusion: Diffusion | None = None
    levels: tuple[float, ...] | None = None
    stream: Stream | None = None
    control: Control | None = None
    layout: Layout | None = None
    chain: tuple[str, ...] = ()

    @property
    def first_size(self) -> tuple[int, int]:
        """(width, height) in pixels: of the first aspect ratio of the first resolution."""
        return next(iter(next(iter(self.sizes.values())).values()))

    def block_graph(self, block: int) -> str:
        """The graph that block number `block` is run by; the last one is in `head`."""
        if self.chain:
            return self.chain[block]
        if self.sparse is not None:
            return f"block_{self.sparse.windows[block]}"
        controlled = self.control is not None and self.control.start <= block < self.control.end
        return "block_control" if controlled else "block"

    def block_graphs(self) -> tuple[str, ...]:
        """All of them, none in whole form."""
        if self.form == "whole":
            return ()
        if self._alike:
            return ("block",)
        return tuple(dict.fromkeys(self.block_graph(i) for i in range(self.blocks - 1)))

    def instances(self, graph: str) -> Sequence[int]:
        if graph not in self.block_graphs():
            return (0,)
        blocks = range(self.blocks - 1)
        return blocks if self._alike else [i for i in blocks if self.block_graph(i) == graph]

    @property
    def _alike(self) -> bool:
        """Whether all blocks are run by one graph."""
        return self.sparse is None and self.control is None and not self.chain


@dataclass(frozen=True)
class Vae(Component):
    """A causal VAE as step graphs `encode_first`, `encode_next`, `decode_first`, `decode_next`.

    One latent covers `spatial` x `spatial` pixels and, after the first frame, `temporal` frames. Statistics are those
    of raw latents; the graphs take and return normalised ones.

    A step is one latent, and one frame in a first step or `temporal` frames in a later one; `chunks` says otherwise by
    the name of the graph. `decode_first_3` starts as `decode_first` does, with three latents. One of pictures, whose
    steps know nothing of each other (`temporal` is 1), has `encode` and `decode` alone.
    """

    channels: int
    spatial: int
    temporal: int
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]
    pixel_format: Literal["rgb24", "nv12", "yuv420p"] = "rgb24"
    chunks: Mapping[str, Chunk] = field(default_factory=dict)

    def chunk(self, graph: str) -> Chunk:
        """What one run of a graph takes and gives."""
        usual = Chunk(1, 1 if graph.endswith("_first") else self.temporal)
        return self.chunks.get(graph, usual)


@dataclass(frozen=True)
class Text(Component):
    """A text encoder `encode(ids, mask)`; prompts are padded with zero rows to `max_tokens` rows of `width`.

    The unconditional text is all `zeros`, or that of the `empty` prompt. Prompts that are `cut` keep their last token.
    With `place` it is one of several (`Manifest.texts`) whose rows together are what a denoiser takes.
    """

    tokenizer: str
    max_tokens: int
    width: int
    unconditional: Literal["zeros", "empty"] = "zeros"
    too_long: Literal["refuse", "cut"] = "refuse"
    place: Place | None = None
