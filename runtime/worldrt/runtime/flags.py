"""The flags of the tasks of `trt-run`: those of the official scripts, and our own, a module for each group."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.runtime import (
    input_flags,
    long_flags,
    model_flags,
    official_flags,
    output_flags,
    reason_flags,
    request_flags,
    safety_flags,
    sampling_flags,
    scale_flags,
)
from worldrt.runtime.parallel import ray_flags

TASKS = {
    "text2world": "a video from a prompt: a picture first, then the video that goes on from it",
    "text2image": "a picture from a prompt",
    "video2world": "a video that goes on from a picture or from the end of a video",
}


def add_task(commands: Any, task: str, defaults: Mapping[str, Any]) -> None:
    """The subcommand of one task; `defaults` by name of the parsed argument."""
    parser: Parser = commands.add_parser(task, help=TASKS[task], description=TASKS[task])
    output_flags.add(parser, task)
    add_making(parser, task)
    ray_flags.add_batch(parser)
    parser.set_defaults(verb=task, **defaults)


def add_making(parser: Parser, task: str) -> None:
    """All that says what is made and how, but not where it goes."""
    request_flags.add(parser, task)
    long_flags.add(parser, task)
    sampling_flags.add(parser, task)
    input_flags.add(parser)
    model_flags.add(parser)
    scale_flags.add(parser)
    safety_flags.add(parser)
    if task != "text2image":
        reason_flags.add_refiner(parser)
    official_flags.add(parser)


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for flags that cannot be used, before anything is opened."""
    output_flags.check(args)
    model_flags.check(args)
    scale_flags.check(args)
    safety_flags.check(args)
    official_flags.check(args)
    long_flags.check(args)
    sampling_flags.check(args)
    input_flags.check(args)
    ray_flags.check_batch(args)
