"""What a run gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldrt.runtime.sinks.base import VideoFormat
from worldrt.runtime.timing import Timings


@dataclass(frozen=True)
class Result:
    """What was made, and how long each stage took."""

    place: str
    sidecar: Path | None
    video: VideoFormat
    timings: Timings

    def as_json(self) -> dict[str, Any]:
        video = self.video
        return {
            "path": self.place,
            "sidecar": str(self.sidecar) if self.sidecar else None,
            "width": video.width,
            "height": video.height,
            "frames": video.frames,
            "fps": video.fps or None,
            "timings_s": self.timings.rounded(),
        }
