"""`--from_sidecar`: the run that a sidecar describes, as defaults of the flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime import changes, engine_flags, sidecar
from worldrt.runtime.engines import BACKENDS
from worldrt.runtime.execution_note import OF_ENGINES, OF_GPU, flags_of
from worldrt.runtime.request import Request


def repeated(args: argparse.Namespace, parse: Callable[[Mapping[str, Any]], argparse.Namespace]) -> argparse.Namespace:
    """Parse again with the sidecar's run as the defaults, so that flags that were given win.

    `parse` takes the defaults. Raises `InputError`.
    """
    data = sidecar.read(args.from_sidecar)
    if data["task"] != args.verb:
        raise InputError(f"{args.from_sidecar}: it describes a run of {data['task']}: trt-run {data['task']} ...")
    again = _parsed(_defaults(data), parse)
    named = any(vars(again).get(flag) for flag in ("refiner_path", "refiner_url"))
    if again.prompt != data["request"].prompt or named:
        again.refined_prompt = None  # made anew, where a refiner is named
    else:
        again.disable_prompt_refiner = True  # the run is repeated with what the text was then
    if "chunk_prompt" in vars(again):
        _other_chunks(again, data["request"])
    if not again.bundle and not again.model_size:
        again.bundle = [bundle["folder"] for bundle in data["bundles"]]
        again.checkpoint = again.checkpoint or [bundle["weight_root"] for bundle in data["bundles"]]
    changes.repeat(again, data["changes"])
    return again


def _other_chunks(again: argparse.Namespace, then: Request) -> None:
    """Prompts of chunks, or one for all of them, that are given now stand for all that was said of that then."""
    if again.chunk_prompt or again.chunk_prompts != then.chunk_prompts:
        again.chunk_prompts = () if again.chunk_prompts == then.chunk_prompts else again.chunk_prompts
        again.num_chunks = None if again.num_chunks == then.num_chunks else again.num_chunks
        again.prompt = "" if again.prompt in then.chunk_prompts[:1] else again.prompt
    elif again.prompt != then.prompt:
        again.chunk_prompts = ()


def _parsed(defaults: dict[str, Any], parse: Callable[[Mapping[str, Any]], argparse.Namespace]) -> argparse.Namespace:
    """Where the flags ask for another backend or device, what is only for the sidecar's is left out."""
    again = parse(defaults)
    dropped = {
        *(() if engine_flags.device_of(again).startswith("cuda") else OF_GPU),
        *(() if again.backend in BACKENDS else OF_ENGINES),
    }
    return parse({name: value for name, value in defaults.items() if name not in dropped})


def _defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """By name of the parsed argument."""
    values = {field.name: getattr(data["request"], field.name) for field in fields(Request)}
    values |= flags_of(data["execution"]) | {key: data.get(key) for key in ("refined_prompt", "quality")}
    given = data["input"]
    if given is not None:
        values |= {"input_path": Path(given.path), "num_conditional_frames": given.frames}
        values |= {"input_reader": given.reader}
    if data["edit"] is not None:
        values |= {"input_video_path": Path(data["edit"].path)}
    return values
