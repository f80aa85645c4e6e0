"""`--batch_input_json`: a list of items, each of which changes some of what the flags say.

    [{"prompt": "A red car", "output_video": "car.mp4", "seed": 3}, {"prompt": "A boat", "output_video": "boat.mp4"}]

The keys are those of the official scripts, `prompt`, `output_video` or `output_image`, `input_video`, and the names of
the task's other flags that say what to make.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from worldrt.engine.errors import InputError
from worldrt.engine.schema import SchemaError, decode, parse_json
from worldrt.runtime.jobs import Job, job_of
from worldrt.runtime.request import Request
from worldrt.runtime.request_flags import prefixed, solver

LARGEST_BYTES = 1 << 26
_OF_JOB: dict[str, tuple[str, Any]] = {  # key of an item that is no field of a request: field of the job, its type
    "num_conditional_frames": ("given_frames", int),
    "input_reader": ("reader", str),
    "quality": ("quality", int),
    "input_video_path": ("edit_path", Path),
}


@dataclass(frozen=True)
class Item:
    """An item of a batch: its job, or None where there are mistakes. `place` is where the result goes, if that is
    known."""

    index: int
    place: str
    job: Job | None
    mistakes: tuple[str, ...] = ()


def read(path: Path, args: argparse.Namespace) -> list[Item]:
    """The items of a file, with the mistakes of each. `args`: the flags, which hold for all items.

    Raises `InputError` where the file as a whole is no list of items.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path}: expected a list of at most {LARGEST_BYTES} bytes, got {path.stat().st_size}")
        items = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(items, list) or not items:
        got = "an empty one" if items == [] else f"{str(items)[:80]!r}"
        raise InputError(f"{path}: expected a list of {{prompt, {_output_key(args.verb)}}}, got {got}")
    schema = _Schema(args)
    return [schema.item(index, data) for index, data in enumerate(items)]


def _output_key(task: str) -> str:
    return "output_image" if task == "text2image" else "output_video"


class _Schema:
    """Which keys an item of a task has."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.base = replace(job_of(args), refined_prompt=None)
        self.output = _output_key(args.verb)
        hints = get_type_hints(Request)
        self.request = {field.name: hints[field.name] for field in fields(Request) if hasattr(args, field.name)}
        self.request["solver"] = self.request["sampler"]
        self.job = {key: of for key, of in _OF_JOB.items() if hasattr(args, key)}
        self.takes_input = hasattr(args, "input_path")
        self.known = [*self.request, *self.job, self.output, *(["input_video"] if self.takes_input else [])]

    def item(self, index: int, data: Any) -> Item:
        if not isinstance(data, dict):
            return Item(index, "", None, (f"expected an object, got {str(data)[:80]!r}",))
        place = data.get(self.output)
        taken = _Taken([*self._unknown(data), *self._missing(data)])
        request = {
            "sampler" if key == "solver" else key: taken.value(kind, data, key)
            for key, kind in self.request.items()
            if key in data
        }
        if isinstance(request.get("sampler"), str):
            request["sampler"] = solver(request["sampler"])
        if chunks := request.get("chunk_prompts"):
            request = {"num_chunks": len(chunks), "prompt": self.args.prompt or chunks[0]} | request
            request["chunk_prompts"] = tuple(prefixed(text, self.args) for text in chunks)
        if isinstance(request.get("prompt"), str):
            request["prompt"] = prefixed(request["prompt"], self.args)
        job = {field: taken.value(kind, data, key) for key, (field, kind) in self.job.items() if key in data}
        job["place"] = taken.value(str, data, self.output)
        if self.takes_input and "input_video" in data:
            job["input_path"] = taken.value(Path, data, "input_video")
        shown = place if isinstance(place, str) else ""
        if taken.mistakes:
            return Item(index, shown, None, tuple(taken.mistakes))
        return Item(index, shown, replace(self.base, request=replace(self.base.request, **request), **job))

    def _unknown(self, data: Mapping[str, Any]) -> list[str]:
        return [f"{key[:80]!r}: unknown key{self._nearest(key)}" for key in data if key not in self.known]

    def _nearest(self, key: str) -> str:
        near = difflib.get_close_matches(key[:80], self.known, 1)
        return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(self.known)}"

    def _missing(self, data: Mapping[str, Any]) -> list[str]:
        needed = [self.output]
        if not self.base.request.prompt and not data.get("chunk_prompts"):
            needed.append("prompt")
        if self.takes_input and self.base.input_path is None:
            needed.append("input_video")
        return [f"'{key}' is missing" for key in needed if key not in data]


class _Taken:
    """Values taken from an item, and what was wrong with them."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes

    def value(self, kind: Any, data: Mapping[str, Any], key: str) -> Any:
        try:
            return decode(kind, data[key], key) if key in data else None
        except SchemaError as error:
            self.mistakes.append(str(error))
            return None
