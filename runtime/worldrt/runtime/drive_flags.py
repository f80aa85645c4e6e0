"""The flags of `trt-run world` and `serve` about driving: where conditions come from, and how views are shown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from worldrt.engine import plugin
from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import condition_config
from worldrt.runtime.condition_config import Config
from worldrt.runtime.conditions.base import PACKAGE, ConditionSource, open_source
from worldrt.runtime.scene.views import LAYOUTS

if TYPE_CHECKING:
    from worldrt.runtime.conditions_world import ConditionsWorld


def add(parser: Parser) -> None:
    """Add the group."""
    add = parser.add_argument_group("driving").add_argument
    add(
        "--source", metavar="NAME", help="where conditions come from: drive (built in) or carla (a simulator that runs)"
    )
    add(
        "-c",
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="cameras, roads, traffic, weather as JSON; OpenDWM's files are taken too; several, the later ones win",
    )
    add(
        "--overlay",
        action=argparse.BooleanOptionalAction,
        help="lay what the pictures are conditioned on over them; the default where the configuration says nothing",
    )
    add("--mosaic", choices=LAYOUTS, default=LAYOUTS[0], help="how views lie in one picture (%(default)s)")
    add("--conditions_only", action="store_true", help="no model: show what one would be conditioned on")


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for what cannot be used."""
    if args.source is not None and args.source not in plugin.names(PACKAGE):
        raise InputError(f"--source: no '{args.source[:40]}' here; there are: {', '.join(plugin.names(PACKAGE))}")
    if args.conditions_only and args.overlay:
        raise InputError("--overlay: with --conditions_only there is nothing to lay them over; leave one of them out")
    if args.conditions_only and getattr(args, "ray", None):
        raise InputError("--ray: there is no model to be shared out with --conditions_only; leave one of them out")
    if args.source is None:
        for flag in ("config", "overlay", "conditions_only"):
            if getattr(args, flag, None):
                raise InputError(f"--{flag}: it is about a source of conditions; say --source drive")


def open_config(args: argparse.Namespace) -> Config:
    """What the files say, and flags that win over them; a seed of theirs becomes that of the flags, where these have
    none. Raises `InputError`."""
    config = condition_config.read(args.config)
    if config.seed is not None and args.seed == 0:
        args.seed = config.seed
    if args.overlay is not None:
        config.overlay = args.overlay
    if config.unused and not (getattr(args, "quiet", False) or getattr(args, "json", False)):
        print(f"not used of the configuration: {', '.join(config.unused)}", file=sys.stderr)
    return config


def sources(args: argparse.Namespace, config: Config) -> Callable[[int], ConditionSource]:
    """What opens the source that the flags name, for the seed of a stream. `--fps` wins over files. Raises
    `InputError`."""
    quiet = getattr(args, "quiet", False) or getattr(args, "json", False)

    def warn(text: str) -> None:
        if not quiet:
            print(" ".join(text.split()), file=sys.stderr, flush=True)

    return lambda seed: open_source(args.source, config.settings, fps=args.fps, seed=seed, warn=warn)


def open_conditions(args: argparse.Namespace, config: Config) -> ConditionSource:
    """The source that the flags name, for `--seed`, or the seed of the files where that is 0. Raises `InputError`."""
    return sources(args, config)(args.seed or config.seed or 0)


def open_conditions_world(args: argparse.Namespace) -> ConditionsWorld:
    """The world without a model that the flags describe. Raises `InputError`."""
    from worldrt.runtime.conditions_world import ConditionsWorld

    config = open_config(args)
    return ConditionsWorld(sources(args, config), args.seed, args.mosaic)
