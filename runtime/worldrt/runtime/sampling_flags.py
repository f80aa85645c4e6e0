"""The flags of `trt-run` that make sampling faster: few steps, clips together, evaluations left out.

Those that fill a field of `Request` have the field's name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime.samplers import DISTILLED_SIGMAS
from worldrt.runtime.shortcuts import Shortcuts

MOST_CLIPS = 64


class _Pair(argparse.Action):
    """Two numbers as a tuple, as a request holds them."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        assert isinstance(values, Sequence)
        setattr(namespace, self.dest, tuple(values))


def add(parser: Parser, task: str) -> None:
    """Add the group of flags of a task."""
    add = parser.add_argument_group("faster sampling; all but --batch_size change the result").add_argument
    if task != "video2world":
        most = 1 + len(DISTILLED_SIGMAS)
        add("--distill_steps", type=int, default=0, choices=range(most + 1), help="steps of a distilled text2image")
    add(
        "--step_cache",
        type=float,
        default=0.0,
        metavar="THRESHOLD",
        help="leave evaluations out while the change since the last one is below this share, such as 0.1",
    )
    add(
        "--guidance_interval",
        type=float,
        nargs=2,
        action=_Pair,
        metavar=("LOW", "HIGH"),
        help="guidance only where sigma is within these",
    )
    add(
        "--adaptive_guidance",
        type=float,
        metavar="COSINE",
        help="no guidance once the predictions for both texts are as similar as that, such as 0.99",
    )
    add("--batch_size", type=int, default=1, metavar="N", help="how many of a batch to make in one call (default 1)")


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for numbers that cannot be used, or flags that do not go together."""
    if not 1 <= args.batch_size <= MOST_CLIPS:
        raise InputError(f"--batch_size: expected 1 to {MOST_CLIPS}, got {args.batch_size}")
    shortcuts = Shortcuts(args.step_cache, args.guidance_interval, args.adaptive_guidance)
    if getattr(args, "record_inputs", None) is not None and (shortcuts or args.batch_size > 1):
        raise InputError("--record_inputs: it keeps every evaluation of one clip; leave --batch_size and shortcuts out")


def execution(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Execution` that the flags say."""
    return {"clips": getattr(args, "batch_size", 1)}
