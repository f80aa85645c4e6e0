"""From flags to a world of several views whose bundle is opened, and the source that drives it."""

from __future__ import annotations

import argparse
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime import drive_flags, world_flags
from worldrt.runtime.conditions.base import ConditionSource
from worldrt.runtime.live.layout_world import LayoutWorld, Showing
from worldrt.runtime.models import Models

SOURCE = "drive"


def open_layout(args: argparse.Namespace, models: Models, source: ConditionSource | None = None) -> LayoutWorld:
    """The world that the flags describe; no graph is loaded. `source` in place of that of the flags. Raises
    `InputError`."""
    for flag in ("init_video", "base_bundle", "base_steps", "commit_level"):
        if getattr(args, flag, None) is not None:
            raise InputError(
                f"--{flag}: this world begins with noise, and its layouts come frame by frame; leave it out"
            )
    args.source = args.source or SOURCE
    config = drive_flags.open_config(args)
    guidance = config.guidance_scale if args.guidance_scale is None else args.guidance_scale
    options: dict[str, Any] = {"size": world_flags.size(args.size), "guidance": guidance}
    showing = Showing(args.mosaic, config.overlay is not False)
    sources = drive_flags.sources(args, config) if source is None else lambda seed: source
    return LayoutWorld(models, sources, seed=args.seed, showing=showing, **options)
