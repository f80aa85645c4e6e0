"""The flags of `trt-run` that say what to make. A flag that fills a field of `Request` has the field's name."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

from worldrt.engine.cli import Parser
from worldrt.runtime.request import Request

SOLVERS = {"ab2": "rectified_flow_ab2", "euler": "rectified_flow_euler"}


def solver(name: str) -> str:
    """The full name of a solver; a name that is not known is refused with the request."""
    return SOLVERS.get(name, name)


def add(parser: Parser, task: str) -> None:
    """Add the group of a task."""
    add = parser.add_argument_group("what to make").add_argument
    add("--prompt", default="", help="what the result shows")
    add("--prompt_prefix", default="", metavar="TEXT", help="stands before every prompt")
    add("--negative_prompt", help="what it should not show; by default a general text for video, nothing for a picture")
    add("--seed", type=int, default=0)
    add(
        "--guidance",
        type=float,
        help="g of x0 = c + g (c - u); the model's own by default (7 for video, 4 for pictures)",
    )
    add("--aspect_ratio", help="1:1, 4:3, 3:4, 16:9 (default) or 9:16")
    add("--resolution", help="480 or 720 (default), where the model has both")
    add("--width", type=int, help="pixels, instead of aspect ratio and resolution; a multiple of 16")
    add("--height", type=int, help="pixels; a multiple of 16")
    if task != "text2image":
        add("--fps", type=int, help="16 (default) or 10")
        add("--num_frames", type=int, help="1 more than a multiple of 4; the model's own by default")
    if task == "video2world":
        add("--input_path", type=Path, help="a picture or a video; the last frames of a video are taken")
        add("--num_conditional_frames", type=int, default=1, choices=(1, 5), help="how many frames are given")
    add("--steps", type=int, help="sampler steps; the model's own by default (35)")
    add("--solver", dest="sampler", type=solver, help="ab2 (default) or euler")
    add("--sigma_max", type=float, help="noise level at the start")
    add("--sigma_min", type=float, help="noise level at the end")


def request_of(args: argparse.Namespace) -> Request:
    """The request that the flags say. A task that lacks a flag leaves the field's default."""
    values = {field.name: getattr(args, field.name) for field in fields(Request) if hasattr(args, field.name)}
    if values.get("num_chunks", 1) is None:
        values["num_chunks"] = max(1, len(args.chunk_prompts))
    request = Request(**(values | {"prompt": prefixed(args.prompt, args)}))
    return replace(request, chunk_prompts=tuple(prefixed(text, args) for text in request.chunk_prompts))


def prefixed(prompt: str, args: argparse.Namespace) -> str:
    """A prompt after its prefix. No prompt stays none."""
    return args.prompt_prefix + prompt if prompt.strip() else prompt
