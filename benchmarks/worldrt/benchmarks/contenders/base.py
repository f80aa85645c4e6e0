"""What a module in this folder holds: `open(...)`, which returns a contender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

STAGES = ("text", "image step", "video step", "encode", "decode", "whole")
"""`text`: all prompts of a run. A step is one guided evaluation: two passes of the transformer. `encode`: what the
video starts from. `decode`: the picture and the clip. `whole`: prompt to frames, everything loaded."""

SCENES = (
    "A red car drives along a coast road in the evening sun, waves break below",
    "A white car drives through a green forest at noon in the snow, trees stand near",
)


@dataclass(frozen=True)
class Workload:
    """One run of text to video; the same for all contenders. Sizes in pixels."""

    steps: int
    image_size: tuple[int, int]
    video_size: tuple[int, int]
    num_frames: int
    channels: int
    text_tokens: int
    text_width: int
    image_guidance: float
    video_guidance: float
    sigma_max: float
    sigma_min: float

    def prompt(self, index: int) -> tuple[str, str]:
        """The prompt and negative prompt of a round: of about one length, but never met before, of two scenes."""
        return (
            f"Take {index:04d}. {SCENES[index % len(SCENES)]}",
            f"Take {index:04d}. Blurred, noisy, badly exposed, with compression blocks and flicker",
        )


class Contender(Protocol):
    """Runs in a process of its own. Arguments and answers travel as JSON; arrays as `.npz` files."""

    def round(self, index: int) -> dict[str, Any]:
        """One run; the answer holds `seconds` by stage."""
        ...

    def frames(self, index: int, path: str) -> dict[str, Any]:
        """One run whose frames, uint8 (T, H, W, 3), are written as `frames` of an .npz file."""
        ...

    def denoise(self, task: str, given: str, path: str) -> dict[str, Any]:
        """x0 of one evaluation with the inputs of `given` (x, level, text, and clean, mask for video), as `x0`."""
        ...
