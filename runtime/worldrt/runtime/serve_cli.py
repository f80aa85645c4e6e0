"""`trt-run serve`: a page on which a world is watched and steered."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from worldrt.engine.errors import BackendError
from worldrt.runtime import serve_flags

if TYPE_CHECKING:
    import socket

    from worldrt.runtime.serve.hub import Hub
    from worldrt.runtime.serve.world import World

STUCK = 1
LIBRARIES = ("aiohttp", "prometheus_client")


def run(args: argparse.Namespace) -> int:
    """Serve the world that the flags describe; the exit code. Mistakes are found before anything is loaded."""
    from worldrt.runtime import world_flags, world_opening
    from worldrt.runtime.shared import shared

    world_flags.check_shared(args)
    return shared(args, _run, world_opening.follow)


def _run(args: argparse.Namespace) -> int:
    from worldrt.runtime import world_opening
    from worldrt.runtime.live.recording import Recording

    world, guard = world_opening.open_world(args)
    if guard is not None:
        guard.check_text(args.prompt)

    with closing(Recording(None, world.facts())) as log:

        def opened() -> World:
            world.load()
            return world_opening.open_session(args, world, guard, log=log)

        return serve(args, opened, args.prompt)


def serve(args: argparse.Namespace, open_world: Callable[[], World], prompt: str = "") -> int:
    """Serve the world that `open_world` makes until Ctrl-C or SIGTERM; the exit code."""
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise BackendError(f"trt-run serve needs {name}: pip install 'worldrt[serve]'")
    from worldrt.runtime.serve import run
    from worldrt.runtime.serve.access import make_access
    from worldrt.runtime.serve.hub import Hub

    serve_flags.check(args)
    access, tls = make_access(args.host, serve_flags.token(args), args.allow_origin), serve_flags.tls(args)
    with run.bind(args.host, args.port) as listening:

        def make_hub() -> Hub:
            return Hub(
                open_world,
                prompt=prompt,
                access=access,
                recordings=args.record_dir,
                places=args.to,
                overwrite=args.overwrite,
                warn=_warn,
                most_viewers=args.max_viewers,
            )

        ranks = getattr(args, "ranks", None)
        lost = None if ranks is None else ranks.control
        hub = run.serve(make_hub, listening, lambda _: _tell(listening, args, secure=tls is not None), tls, lost)
    print("stopped")
    return STUCK if hub.host.alive else 0


def _tell(listening: socket.socket, args: argparse.Namespace, *, secure: bool) -> None:
    port, host = listening.getsockname()[1], args.host
    shown = f"[{host}]" if ":" in host else host
    print(f"open http{'s' if secure else ''}://{shown}:{port}/ and press W, A, S or D; Ctrl-C ends it", flush=True)


def _warn(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr, flush=True)
