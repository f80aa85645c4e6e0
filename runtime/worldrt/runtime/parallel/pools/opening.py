"""From flags to pools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from worldrt.engine.errors import InputError
from worldrt.runtime import report, world_opening
from worldrt.runtime.conditions._elsewhere import Elsewhere
from worldrt.runtime.live.layout_world import LayoutWorld
from worldrt.runtime.live.model import LiveModel
from worldrt.runtime.live.world import World
from worldrt.runtime.parallel.mesh import mesh
from worldrt.runtime.parallel.pools.batch import Maker, Spread
from worldrt.runtime.parallel.pools.group import Groups
from worldrt.runtime.parallel.pools.parts import DecodePartWorker
from worldrt.runtime.parallel.pools.workers import DecodeWorker, DenoiseWorker
from worldrt.runtime.parallel.pools.world import PooledWorld, pooled_world
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.ray_cluster import address_of_machine, loopback, open_cluster
from worldrt.runtime.parallel.ray_flags import gpus_of

INTO_A_FILE = 3


@contextmanager
def pooled(args: argparse.Namespace, world: World) -> Iterator[PooledWorld]:
    """The world of the flags, its models in workers of a cluster; all of that is gone in the end. `world`, which says
    what it is, loads nothing."""
    live = bool(args.to) or args.length is None
    source = world.source if isinstance(world, LayoutWorld) else None
    args = argparse.Namespace(**vars(args))
    make = partial(open_alone, args, source)
    group, parts = args.num_gpus_dit, args.num_gpus_vae
    _check_group(world, group)
    decode = [partial(DecodePartWorker, make, i, parts) for i in range(parts)]
    workers = (group + parts) * (1 + args.ray_spare)
    with open_cluster(workers, gpus=gpus_of(args), address=args.ray_address) as cluster:
        address = loopback if args.ray_address is None else address_of_machine
        groups = Groups(cluster, group, partial(follow, args), address, args.collective_timeout)
        pools = pooled_world(
            world,
            cluster,
            partial(DenoiseWorker, make) if group == 1 else partial(lead, args, source),
            decode if parts > 1 else [partial(DecodeWorker, make)],
            groups=groups if group > 1 else None,
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


def open_alone(args: argparse.Namespace, source: Elsewhere | None) -> LiveModel:
    """The world of the flags in a worker. Prompts and pictures are looked at where the session is, and what drives a
    world, of which `source` tells, is there alone."""
    args.disable_guardrail, args.guardrail_path, args.blocklist = True, None, None
    return world_opening.open_world(args, source)[0]


def lead(args: argparse.Namespace, source: Elsewhere | None, ranks: Ranks) -> DenoiseWorker:
    """The first worker of a group, which the transformer is shared by."""
    return DenoiseWorker(partial(open_alone, _among(args, ranks), source))


def follow(args: argparse.Namespace, ranks: Ranks) -> None:
    """What the others of the group do."""
    world_opening.follow(_among(args, ranks), ranks.control)


def _check_group(world: World, size: int) -> None:
    """Raises `InputError` for a transformer that so many workers cannot share."""
    guided = len(world.schedule.terms) > 1
    if world.spec.form == "whole" and mesh(size, guided=guided).context > 1:
        raise InputError(
            f"--num_gpus_dit {size}: the frames of a window are shared out between blocks, and this model is one whole "
            f"graph; export it with --form block, or say --num_gpus_dit {1 + guided}"
        )


def _among(args: argparse.Namespace, ranks: Ranks) -> argparse.Namespace:
    chosen = Ranks(ranks.control, cfg=args.cfg_parallel, context=args.context_parallel, mode=args.cp_mode)
    return argparse.Namespace(**{**vars(args), "ranks": chosen})


def _warn(text: str) -> None:
    print(f"warning: {report.plain(text)}", file=sys.stderr, flush=True)
