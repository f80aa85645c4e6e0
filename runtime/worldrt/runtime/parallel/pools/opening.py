"""From flags to pools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from worldrt.runtime import report, world_opening
from worldrt.runtime.live.model import LiveModel
from worldrt.runtime.live.world import World
from worldrt.runtime.parallel.pools.batch import Maker, Spread
from worldrt.runtime.parallel.pools.parts import DecodePartWorker
from worldrt.runtime.parallel.pools.workers import DecodeWorker, DenoiseWorker
from worldrt.runtime.parallel.pools.world import PooledWorld
from worldrt.runtime.parallel.ray_cluster import open_cluster
from worldrt.runtime.parallel.ray_flags import gpus_of

INTO_A_FILE = 3


@contextmanager
def pooled(args: argparse.Namespace, world: World) -> Iterator[PooledWorld]:
    """The world of the flags, its models in workers of a cluster; all of that is gone in the end. `world`, which says
    what it is, loads nothing."""
    live = bool(args.to) or args.length is None
    make = partial(open_alone, argparse.Namespace(**vars(args)))
    parts = args.num_gpus_vae
    decode = [partial(DecodePartWorker, make, i, parts) for i in range(parts)]
    workers = (1 + parts) * (1 + args.ray_spare)
    with open_cluster(workers, gpus=gpus_of(args), address=args.ray_address) as cluster:
        pools = PooledWorld(
            world,
            cluster,
            partial(DenoiseWorker, make),
            decode if parts > 1 else [partial(DecodeWorker, make)],
            window=args.ray_window or (1 if live else INTO_A_FILE),
            every=args.ray_checkpoint,
            spare=args.ray_spare,
            told=_warn,
        )
        try:
            pools.load()
            yield pools
        finally:
            pools.end()


@contextmanager
def spread(args: argparse.Namespace, make: Callable[[], Maker]) -> Iterator[Spread]:
    """What has the groups of a batch made by as many workers as the flags say."""
    count = args.num_gpus
    with open_cluster(count, gpus=gpus_of(args), address=args.ray_address) as cluster:
        yield Spread(cluster, make, count, _warn)


def open_alone(args: argparse.Namespace) -> LiveModel:
    """The world of the flags in a worker. Prompts and pictures are looked at where the session is."""
    args.disable_guardrail, args.guardrail_path, args.blocklist = True, None, None
    return world_opening.open_world(args)[0]


def _warn(text: str) -> None:
    print(f"warning: {report.plain(text)}", file=sys.stderr, flush=True)
