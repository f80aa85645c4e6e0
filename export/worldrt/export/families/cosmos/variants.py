"""The Cosmos-Predict2 models as data: sizes, defaults, and where their weights are found.

`nano` is ours: the same networks with about 10 M parameters in all, so that everything runs anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from worldrt.engine.errors import InputError
from worldrt.export.families.cosmos.windows import WINDOWS_2B, WINDOWS_14B, WINDOWS_NANO, Window, Windows
from worldrt.export.modules.t5 import T5Config

Task = Literal["text2image", "video2world"]
PixelSize = tuple[int, int]
"""Width and height, multiples of 16."""

PATCH = 2
"""Latent rows and columns of a token."""
CLEAN_SIGMA = 1e-4
"""Noise level that the network is told for a known frame."""
DISTILLED_STEPS = 4
"""Of the checkpoints that are distilled, which know four noise levels."""
VAE_SCALE = 8
"""Pixels of a latent row or column."""
SPARSE_RESOLUTION = "720"
"""The one that sparse checkpoints exist for, at 16:9."""


@dataclass(frozen=True)
class DiTConfig:
    """Shape of the diffusion transformer. `rope_ratio` stretches frames, rows and columns; `windows` are those of a
    sparse one."""

    blocks: int
    width: int
    heads: int
    rope_ratio: tuple[float, float, float]
    condition_mask: bool
    adaln_rank: int = 256
    text_width: int = 1024
    latent_channels: int = 16
    mlp_ratio: int = 4
    windows: Windows | None = None

    def block_windows(self) -> tuple[Window | None, ...]:
        """That of each block."""
        return (None,) * self.blocks if self.windows is None else self.windows.blocks

    @property
    def latent_size(self) -> tuple[int | str, int | str]:
        """Latent rows and columns, in the words of a `TensorSpec`: windows are made for one size."""
        if self.windows is None:
            return f"{PATCH}*rows", f"{PATCH}*columns"
        rows, columns = self.windows.grid
        return PATCH * rows, PATCH * columns

    @property
    def frame_tokens(self) -> int | str:
        """Tokens of a frame, in the words of a `TensorSpec`."""
        return "tokens" if self.windows is None else self.windows.grid[0] * self.windows.grid[1]

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def patch_channels(self) -> int:
        """Latents, the condition mask where there is one, and the padding mask."""
        return self.latent_channels + self.condition_mask + 1


@dataclass(frozen=True)
class VAEConfig:
    """Shape of the causal video VAE (Wan 2.1) and the statistics that normalise its latents."""

    base: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    temporal: tuple[bool, ...] = (False, True, True)
    """Which of the spatial halvings halve time too, encoder order."""
    latent_channels: int = 16
    latent_mean: tuple[float, ...] = (
        *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
        *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    )
    latent_std: tuple[float, ...] = (
        *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
        *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
    )


@dataclass(frozen=True)
class SamplerDefaults:
    """`kind` as the runtime knows it. By default a Karras ramp from `sigma_max` to `sigma_min`; a last clean pass at
    `sigma_min` follows the steps."""

    kind: str = "rectified_flow_ab2"
    steps: int = 35
    sigma_max: float = 80.0
    sigma_min: float = 0.002
    order: float = 7.0


@dataclass(frozen=True)
class Files:
    """Where weights lie below a checkpoint root, and the repositories they come from."""

    repository: str
    dit: str
    vae: str
    text_repository: str
    text: str


@dataclass(frozen=True)
class Variant:
    """One model: `size` as the command line spells it, and a task.

    `sizes` holds pixel sizes by resolution and aspect ratio; the one key `any` means that the model has a single
    resolution. `latent_frames` is the clip length by frames per second. `guidance` is g of c + g (c - u).
    """

    size: str
    task: Task
    dit: DiTConfig
    sizes: Mapping[str, Mapping[str, PixelSize]]
    latent_frames: Mapping[int, int]
    guidance: float
    vae: VAEConfig = VAEConfig()
    t5: T5Config = field(default_factory=T5Config)
    sampler: SamplerDefaults = SamplerDefaults()
    windows: Windows | None = None
    """Those of its sparse checkpoints, where it has some; see `sparse`."""
    is_distilled: bool = False
    """Whether its weights are distilled to few steps; see `distilled`."""

    @property
    def repository(self) -> str:
        kind = {"text2image": "Text2Image", "video2world": "Video2World"}[self.task]
        return f"nvidia/Cosmos-Predict2-{self.size}-{kind}"

    def files(self, resolution: str = "720", fps: int = 16) -> Files:
        """The official layout below `checkpoints/`."""
        kind = "" if self.dit.windows is None else "-natten"
        image = "model_distilled.pt" if self.is_distilled else "model.pt"
        name = image if self.task == "text2image" else f"model-{resolution}p-{fps}fps{kind}.pt"
        return Files(
            repository=self.repository,
            dit=f"{self.repository}/{name}",
            vae=f"{self.repository}/tokenizer/tokenizer.pth",
            text_repository="google-t5/t5-11b",
            text="google-t5/t5-11b",
        )

    def distilled(self) -> Variant:
        """The same picture model distilled to four steps without guidance: the official file model_distilled.pt.

        Raises `InputError` for a video model.
        """
        if self.task != "text2image":
            raise InputError("--distilled: it is about text2image; leave it out, or give another --task")
        sampler = SamplerDefaults("distilled", DISTILLED_STEPS)
        return replace(self, is_distilled=True, sampler=sampler, guidance=0.0)

    def sparse(self, resolution: str) -> Variant:
        """The same model with neighbourhood attention, which has a single size.

        Raises `InputError` where there is no such checkpoint.
        """
        if self.windows is None:
            raise InputError(f"--natten: there is no sparse {self.size} {self.task}; leave the flag out")
        if "any" not in self.sizes and resolution != SPARSE_RESOLUTION:
            raise InputError(f"--natten: there are sparse weights for --resolution {SPARSE_RESOLUTION} only")
        sizes = {key: {"16:9": table["16:9"]} for key, table in self.sizes.items() if key in ("any", SPARSE_RESOLUTION)}
        return replace(self, dit=replace(self.dit, windows=self.windows), sizes=sizes)

    def pixel_size(self, aspect_ratio: str = "16:9", resolution: str = "720") -> PixelSize:
        """Width and height. Raises `InputError` on a resolution or aspect ratio that the model does not have."""
        table = self.sizes.get("any") or self.sizes.get(resolution)
        if table is None:
            raise InputError(f"resolution '{resolution}': {self.size} {self.task} has {', '.join(self.sizes)}")
        if aspect_ratio not in table:
            raise InputError(f"aspect ratio '{aspect_ratio}': there are {', '.join(table)}")
        return table[aspect_ratio]

    def clip_latents(self, fps: int = 16) -> int:
        """Latent frames of a clip; it has 4 (n - 1) + 1 frames. Raises `InputError` on an unknown frame rate."""
        if fps not in self.latent_frames:
            known = ", ".join(map(str, self.latent_frames))
            raise InputError(f"{fps} frames per second: {self.size} {self.task} has {known}")
        return self.latent_frames[fps]


@dataclass(frozen=True)
class DiffusersLayout:
    """Folders of a diffusers-style checkpoint."""

    transformer: str = "transformer"
    vae: str = "vae"
    text_encoder: str = "text_encoder"
    tokenizer: str = "tokenizer"


def variants() -> list[Variant]:
    """All models, the smallest first."""
    return [*_nano(), *_official()]


def variant(size: str, task: str) -> Variant:
    """The model of that size and task. Raises `InputError` that lists what there is."""
    for candidate in variants():
        if (candidate.size.lower(), candidate.task) == (size.lower(), task):
            return candidate
    known = ", ".join(f"{v.size} {v.task}" for v in variants())
    raise InputError(f"no Cosmos-Predict2 model '{size} {task}'; there are: {known}")


def _official() -> list[Variant]:
    sizes_image = {
        "16:9": (1360, 768),
        "4:3": (1168, 880),
        "1:1": (1024, 1024),
        "3:4": (880, 1168),
        "9:16": (768, 1360),
    }
    sizes_720 = {"16:9": (1280, 704), "4:3": (960, 704), "1:1": (960, 960), "3:4": (704, 960), "9:16": (704, 1280)}
    sizes_480 = {"16:9": (768, 432), "4:3": (640, 480), "1:1": (480, 480), "3:4": (480, 640), "9:16": (432, 768)}
    shapes = {
        "0.6B": DiTConfig(20, 1280, 20, (1.0, 4.0, 4.0), condition_mask=False),
        "2B": DiTConfig(28, 2048, 16, (1.0, 4.0, 4.0), condition_mask=False),
        "14B": DiTConfig(36, 5120, 40, (1.0, 4.0, 4.0), condition_mask=False),
    }
    windows = {"2B": WINDOWS_2B, "14B": WINDOWS_14B}
    video_ratios = {"2B": (1.0, 3.0, 3.0), "14B": (20 / 24, 2.0, 2.0)}
    images = [
        Variant(size, "text2image", dit, sizes={"any": sizes_image}, latent_frames={16: 1, 10: 1}, guidance=4.0)
        for size, dit in shapes.items()
    ]
    videos = [
        Variant(
            size,
            "video2world",
            replace(shapes[size], rope_ratio=ratio, condition_mask=True),
            sizes={"720": sizes_720, "480": sizes_480},
            latent_frames={16: 24, 10: 16},
            guidance=7.0,
            windows=windows[size],
        )
        for size, ratio in video_ratios.items()
    ]
    return [*images, *videos]


def _nano() -> list[Variant]:
    dit = DiTConfig(
        blocks=4,
        width=256,
        heads=4,
        rope_ratio=(1.0, 1.0, 1.0),
        condition_mask=False,
        adaln_rank=64,
        text_width=128,
    )
    image = Variant(
        "nano",
        "text2image",
        dit,
        sizes={"any": {"16:9": (128, 80), "4:3": (128, 96), "1:1": (96, 96), "3:4": (96, 128), "9:16": (80, 128)}},
        latent_frames={16: 1, 10: 1},
        guidance=1.0,
        vae=VAEConfig(base=8),
        t5=T5Config(layers=2, width=128, heads=4, head_dim=32, feed_forward=512, vocabulary=1024),
    )
    video = replace(
        image,
        task="video2world",
        dit=replace(dit, condition_mask=True),
        latent_frames={16: 5, 10: 5},
        guidance=1.0,
        windows=WINDOWS_NANO,
    )
    return [image, video]
