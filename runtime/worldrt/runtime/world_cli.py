"""`trt-run world`: a world that is steered by a signal, a recording, or nobody, into files and live places."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.runtime import report, world_flags, world_opening
from worldrt.runtime.live import offline, replay
from worldrt.runtime.live.controls import AUTO
from worldrt.runtime.live.keyboard import HELP, Keyboard
from worldrt.runtime.live.latency import Latencies
from worldrt.runtime.live.model import LiveModel
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.places import open_live
from worldrt.runtime.live.recording import Recording
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.stamps import LiveFrame
from worldrt.runtime.live.steering import Written
from worldrt.runtime.live.world import World
from worldrt.runtime.observer import Observer
from worldrt.runtime.parallel.pools.opening import pooled
from worldrt.runtime.progress import Bars, Plain
from worldrt.runtime.safety.base import Guard
from worldrt.runtime.shared import shared
from worldrt.runtime.sinks.base import VideoFormat, Write, open_sink


def run(args: argparse.Namespace) -> int:
    """Make what the flags say; returns the exit code."""
    world_flags.check(args)
    return shared(args, _run, world_opening.follow)


def _run(args: argparse.Namespace) -> int:
    if args.keys:
        Keyboard(lambda control: None)  # a terminal that is none is known before anything is loaded
    world, guard = world_opening.open_world(args)
    if args.ranks is not None:
        world.load()  # while the other ranks load, too
    with ExitStack() as stack:
        log = None
        if args.record is not None:
            log = stack.enter_context(closing(Recording(args.record, world.facts())))
        model = stack.enter_context(pooled(args, world)) if args.ray and isinstance(world, World) else world
        session, prompt, frames = _session(args, model, guard, log)
        stack.callback(session.stop)
        result = _made(args, session, prompt, frames)
        if log is not None and log.problem:
            print(f"warning: {log.problem}", file=sys.stderr)
    print(json.dumps(result, indent=1) if args.json else _line(result))
    return 0


def _session(
    args: argparse.Namespace, world: LiveModel, guard: Guard | None, log: Recording | None
) -> tuple[WorldSession, str, int | None]:
    """The session, its prompt, and how many frames it has, where that is known."""
    options: dict[str, Any] = {"log": log}
    if not args.to:
        options["pace"] = PaceOptions(None)  # into a file, as fast as it goes
    if args.replay is not None:
        script = _script(args, world)
        pace = options.pop("pace", None) or PaceOptions(args.fps or float(world.video.fps), args.late)
        session = replay.replaying(world, script, pace=pace, guard=guard)
        return session, script.prompt, script.frames
    if args.length is None:
        return world_opening.open_session(args, world, guard, **options), args.prompt, None
    base, stream = offline.signals(world, args.length, args.control_signal, args.control_seed)
    if args.control_signal is None and AUTO in world.controls:
        stream = (AUTO,)
    options |= {"steering": Written(stream, -world.schedule.given, endless=True), "base": base}
    return world_opening.open_session(args, world, guard, **options), args.prompt, offline.frames_of(world, args.length)


def _script(args: argparse.Namespace, world: LiveModel) -> replay.Script:
    """The last world of a recording that was shown."""
    facts, scripts = replay.read(args.replay)
    replay.check_model(facts, world)
    whole = [script for script in scripts if script.frames]
    if not whole:
        raise InputError(f"{args.replay}: it was cut short before a world ended, so its length is not known")
    return whole[-1]


def _made(args: argparse.Namespace, session: WorldSession, prompt: str, frames: int | None) -> dict[str, Any]:
    """Run a session into its places; what became of it as JSON data."""
    observer: Observer = Plain() if args.quiet or args.json else Bars()
    video = replace(session.video, frames=frames, quality=args.quality)
    latencies, began_s = Latencies(), time.monotonic()
    made = 0
    states = []
    with observer, _file(args, video) as write, ExitStack() as stack:
        output = None
        if args.to:
            passed = latencies.passed
            output = open_live(args.to, video, overwrite=args.overwrite, passed=passed, warn=_told(args))
        try:
            session.start(prompt)
            for frame in stack.enter_context(closing(_frames(args, session, frames))):
                made += 1
                write(frame.picture)
                latencies.add(frame.stamps)
                if output is not None:
                    output.put(frame)
                if frames is not None:
                    observer.progress("frames", made, frames)
        except KeyboardInterrupt:
            if frames is not None:
                raise
        finally:
            if output is not None:
                states = [str(state) for state in output.close()]
    seconds = time.monotonic() - began_s
    places = [place for place in (args.save_path, *args.to) if place]
    pacer = session.pacer
    return {
        "places": places,
        "frames": made,
        "width": video.width,
        "height": video.height,
        "seconds": round(seconds, 3),
        "late": pacer.late,
        "dropped": session.dropped,
        "states": states,
        "latency_ms": latencies.summary(),
    }


def _file(args: argparse.Namespace, video: VideoFormat) -> AbstractContextManager[Write]:
    if args.save_path is None:
        return nullcontext(lambda picture: None)
    return open_sink(args.save_path, video, overwrite=args.overwrite)


def _told(args: argparse.Namespace) -> Callable[[str], None]:
    """What says how places are: each change of a state, in a line."""
    if args.quiet or args.json:
        return lambda text: None
    return lambda text: print(report.plain(text), file=sys.stderr, flush=True)


def _frames(args: argparse.Namespace, session: WorldSession, count: int | None) -> Generator[LiveFrame]:
    """The frames of a world; steered from the terminal, until q is pressed."""
    if not args.keys:
        yield from islice(session.frames(), count)
        return
    with Keyboard(session.control) as keyboard:
        _told(args)(HELP)
        while not keyboard.ended and not session.done:
            yield from session.step()


def _line(result: dict[str, Any]) -> str:
    places = ", ".join(report.plain(str(place)) for place in result["places"])
    rate = result["frames"] / max(result["seconds"], 1e-3)
    late = f", {result['dropped']} dropped" if result["dropped"] else ""
    return f"{places}: {result['frames']} frames, {result['width']}x{result['height']}, {rate:.1f} fps{late}"
