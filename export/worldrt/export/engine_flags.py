"""The flags of `trt-export` that are about engines."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.export.quantize import flags as quantize_flags

BACKENDS = ("tensorrt", "tensorrt_rtx")
_TITLE = "engines"
_CAPABILITY = re.compile("[1-9][0-9]?[.][0-9]")
_OF_BUNDLES_TOO = {"bundle", "checkpoint", "components", "json", *quantize_flags.NAMES}


def add(parser: Parser) -> None:
    """Add the group of flags."""
    group = parser.add_argument_group(_TITLE, "plans for GPUs, kept in the plan cache")
    group.add_argument("--backend", choices=BACKENDS, help="build a plan of every graph with this library")
    group.add_argument(
        "--check", action="store_true", help="build nothing; list the nodes that the library cannot take"
    )
    group.add_argument(
        "--compute_capability",
        nargs="+",
        metavar="X.Y",
        default=[],
        help="of tensorrt_rtx: GPUs to build for, such as 8.9 12.0, with or without one here; default: the one here",
    )
    group.add_argument("--device", default="cuda", help="the GPU to build on; default: cuda, the first one")
    group.add_argument(
        "--profile",
        nargs="+",
        metavar="AXIS=MIN:OPT:MAX",
        default=[],
        help="ranges of axes, such as rows=10:44:44 frames=24 vae.rows=20:88:88; default: those of the model",
    )
    group.add_argument("--batch", type=int, default=2, choices=(1, 2), help="1: guidance takes two calls")
    group.add_argument(
        "--block_weights",
        default="auto",
        choices=("auto", "inputs", "constants"),
        help="of a transformer in blocks: one plan for all blocks, or one with its weights for each; auto: by size",
    )
    group.add_argument("--optimization_level", type=int, default=3, choices=range(6), help="more: slower to build")
    group.add_argument("--workspace_gb", type=float, metavar="GB", help="the most scratch memory of a layer")
    group.add_argument("--refit", action="store_true", help="weights can be replaced in the plan")
    group.add_argument(
        "--strip_plan", action="store_true", help="leave the weights out; they are read when it is loaded"
    )
    group.add_argument("--weight_streaming", action="store_true", help="weights may stay in host memory")
    group.add_argument("--version_compatible", action="store_true", help="for later versions of the library too")
    group.add_argument("--hardware_compatible", action="store_true", help="of tensorrt: for other GPUs of its kind too")
    group.add_argument("--plan_cache", type=Path, metavar="DIR", help="default: $WORLDRT_PLAN_CACHE, or ~/.cache")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises `InputError` for a flag that would have no effect."""
    of_engines = {action.dest for action in _actions(parser, _TITLE)}
    given = {action.dest: action.option_strings[-1] for action in parser._actions if _given(action, args)}
    if args.bundle is not None:
        if not (args.backend or args.check or args.quantize):
            raise InputError("--bundle: say what to make of it: --backend tensorrt_rtx, --check, or --quantize fp8")
        of_results = {"output", "overwrite"} if args.quantize else set()
        for name in given.keys() - of_engines - _OF_BUNDLES_TOO - of_results:
            raise InputError(f"{given[name]}: it is about exporting; with --bundle nothing is exported")
    elif not (args.backend or args.check):
        for name in sorted(given.keys() & of_engines):
            raise InputError(f"{given[name]}: it is about engines; say with which library: --backend tensorrt_rtx")
    if args.backend == "tensorrt" and args.compute_capability:
        raise InputError("--compute_capability: tensorrt builds for the GPU that it runs on; leave it out")
    if args.compute_capability and args.device != parser.get_default("device"):
        raise InputError("--device: with --compute_capability no GPU is looked at; leave one of them out")
    if args.workspace_gb is not None and not 0 < args.workspace_gb < 1e6:
        raise InputError(f"--workspace_gb: expected a number above 0, got {args.workspace_gb:g}")
    for text in args.compute_capability:
        if not _CAPABILITY.fullmatch(text):
            raise InputError(f"--compute_capability: expected numbers such as 8.9, got '{text}'")


def _actions(parser: argparse.ArgumentParser, title: str) -> list[Any]:
    return [action for group in parser._action_groups if group.title == title for action in group._group_actions]


def _given(action: argparse.Action, args: argparse.Namespace) -> bool:
    return bool(action.option_strings) and getattr(args, action.dest, action.default) != action.default
