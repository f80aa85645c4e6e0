"""From flags to a world whose bundles are opened, and to a session that is not started yet."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Manifest, read_manifest
from worldrt.engine.errors import InputError
from worldrt.engine.packaged import all_packaged
from worldrt.runtime import drive_flags, model_flags, safety_flags, scale_flags, world_flags
from worldrt.runtime.conditions.base import ConditionSource
from worldrt.runtime.conditions_world import ConditionsWorld
from worldrt.runtime.images import cover
from worldrt.runtime.layout_opening import open_layout
from worldrt.runtime.live.controls import AUTO
from worldrt.runtime.live.model import LiveModel, Picture
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Wheel
from worldrt.runtime.live.world import TASK, World
from worldrt.runtime.locate import all_bundles
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.control import Control
from worldrt.runtime.parallel.worker import work
from worldrt.runtime.safety.base import Guard
from worldrt.runtime.sources.base import check_file, open_source, stacked

FIRST_FRAMES = 129
"""Frames that are read of a video to go on from, at most."""
FAMILY = "matrix"
"""The worlds that are meant where nothing is said."""


def open_world(
    args: argparse.Namespace, source: ConditionSource | None = None
) -> tuple[World | ConditionsWorld, Guard | None]:
    """The world that the flags describe, and what looks at its prompts; no graph is loaded. `source` in place of what
    the flags say of sources. Raises `InputError` or `BundleError`."""
    if args.conditions_only:
        return drive_flags.open_conditions_world(args), None
    if args.init_video is not None:
        check_file(args.init_video)
    models, base = open_models(args)
    guard = safety_flags.make(args, models)
    if models.opener(TASK).bundle.manifest.denoisers[TASK].layout is not None:
        return open_layout(args, models, source), guard
    options: dict[str, Any] = {
        "guidance": args.guidance_scale,
        "commit_level": args.commit_level,
        "base": base,
        "base_steps": args.base_steps,
    }
    world = World(models, size=world_flags.size(args.size), **options)
    if args.init_video is None:
        return world, guard
    width, height = world.video.width, world.video.height
    return World(models, size=(width, height), init=first_frames(args, width, height), **options), guard


def open_models(args: argparse.Namespace) -> tuple[Models, Models | None]:
    """The models that the flags name, and those of the clip that the world goes on from, where they are others."""
    if not args.bundle:
        args.bundle = [str(find(args.model, args.family))]
    models = model_flags.open_models(args, **scale_flags.execution(args))
    if args.base_bundle is None:
        return models, None
    execution = models.execution
    base = Models.open(
        [args.base_bundle],
        backend=execution.backend,
        device=execution.device,
        options=execution.options,
        ranks=execution.ranks,
    )
    return models, base


def follow(args: argparse.Namespace, control: Control) -> None:
    """What every rank but the first one does for a world: its part of each window, until the end. Ctrl-C is for rank 0,
    which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    models, base = open_models(args)
    models.denoiser(TASK)  # while rank 0 loads it too
    work(models, control, base)


def open_session(args: argparse.Namespace, world: LiveModel, guard: Guard | None, **options: Any) -> WorldSession:
    """A live session; `options` are further ones of `WorldSession`."""
    pace = world_flags.pace(args)
    pace = pace if pace.fps is not None else replace(pace, fps=float(world.video.fps))
    alone = AUTO in world.controls and args.verb == "world" and not getattr(args, "keys", False)  # nobody drives
    wheel = Wheel(world.controls, args.idle or ("auto" if alone else "neutral"), args.seed)
    return WorldSession(world, **{"seed": args.seed, "pace": pace, "steering": wheel, "guard": guard} | options)


def first_frames(args: argparse.Namespace, width: int, height: int) -> Picture:
    """The beginning of the video to go on from, in the world's size; a picture is a video of one frame."""
    frames = islice(open_source(args.init_video, args.input_reader).frames(), FIRST_FRAMES)
    return stacked(args.init_video, (cover(frame[None], width, height)[0] for frame in frames), 1)


def find(name: str | None, family: str | None = None) -> Path:
    """The bundle of a world: that of a name, or the only one there is, of a family. A part of the name will do, as
    `nano`; of several that have it, the one of The Matrix is meant. What is in no folder may be part of the package.
    Raises `InputError` that says what to run."""
    there = _worlds(all_bundles(), family)
    found = _named(there, name) or _named(_worlds(all_packaged(), family), name)
    if len(found) == 1:
        return found[0]
    small = f"nano-{family or FAMILY}"
    how = f"make one with: trt-export --model {small} -o bundles/{small} (a small untrained model)"
    names = ", ".join(folder.name for folder in there)
    if not found:
        raise InputError(f"no bundle of a world{f' named {name}' if name else ''} here ({names or 'none'}); {how}")
    raise InputError(f"several bundles of worlds ({names}); choose one with --model or --bundle")


def _worlds(folders: Sequence[Path], family: str | None) -> dict[Path, Manifest]:
    """The bundles of worlds among these."""
    made = {folder: read_manifest(folder) for folder in folders}
    return {folder: m for folder, m in made.items() if TASK in m.denoisers and family in (None, m.family)}


def _named(there: Mapping[Path, Manifest], name: str | None) -> list[Path]:
    """Those that a name, or a part of it, may mean; all of them where there is none."""
    if name is None:
        return list(there)
    found = [folder for folder, made in there.items() if name in (folder.name, made.variant)]
    found = found or [folder for folder in there if name in folder.name.split("-")]
    return [folder for folder in found if len(found) == 1 or there[folder].family == FAMILY] or found
