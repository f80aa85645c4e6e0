"""What rank 0 has the others do, as JSON data and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worldrt.engine.schema import decode, encode
from worldrt.runtime.clip import Clip
from worldrt.runtime.parallel.wire import Arrays, Message
from worldrt.runtime.request import Settings

SAMPLE = "sample"
_COND, _UNCOND, _START = "text", "other text", "start"


def sampling_order(task: str, settings: Settings, clips: Sequence[Clip]) -> tuple[Message, dict[str, Any]]:
    """To sample clips together with it."""
    arrays: dict[str, Any] = {}
    for i, clip in enumerate(clips):
        own = {_COND: clip.texts[0], _UNCOND: clip.texts[1]}
        own |= {f"condition {name}": value for name, value in clip.conditions.items()}
        own |= {} if clip.start is None else {_START: clip.start}
        arrays |= {f"{i} {name}": value for name, value in own.items()}
    message = {"do": SAMPLE, "task": task, "settings": encode(settings), "seeds": [clip.seed for clip in clips]}
    return message, arrays


def sampling_of(message: Message, arrays: Arrays) -> tuple[str, Settings, list[Clip]]:
    """The inverse of `sampling_order`."""
    clips = []
    for i, seed in enumerate(message["seeds"]):
        own = {name.partition(" ")[2]: value for name, value in arrays.items() if name.startswith(f"{i} ")}
        conditions = {n.partition(" ")[2]: v for n, v in own.items() if n.startswith("condition ")}
        clips.append(Clip(seed, (own[_COND], own[_UNCOND]), conditions, own.get(_START)))
    return message["task"], decode(Settings, message["settings"]), clips
