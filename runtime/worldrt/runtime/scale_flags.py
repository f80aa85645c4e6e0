"""The flags of `trt-run` that are about many GPUs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import engine_flags
from worldrt.runtime.parallel import launch, mesh
from worldrt.runtime.parallel.pulse import LIMIT_S

if TYPE_CHECKING:
    from worldrt.runtime.parallel.ranks import Ranks

MOST = 1024


def add(parser: Parser) -> None:
    """Add the group of flags."""
    add = parser.add_argument_group("on many GPUs").add_argument
    add("--num_gpus", type=int, default=1, metavar="N", help="share each clip among N GPUs; of the CPU, N processes")
    add("--cfg_parallel", type=int, choices=(1, 2), help="GPUs for the two texts of guidance (default: 2 if N is even)")
    add("--context_parallel", type=int, metavar="P", help="GPUs that share the frames (default: all that are left)")
    add(
        "--share",
        choices=("frames", "views"),
        help="what those share of a model of several views; by default views, where they come out even",
    )
    add(
        "--cp_mode",
        choices=("gather", "ulysses", "native"),
        default="gather",
        help="how these attend to all frames: gather K and V between graphs (default), or in TensorRT's engines "
        "(native); or exchange frames for heads (ulysses, see trt-export --attention_cut)",
    )
    add(
        "--collective_timeout",
        type=float,
        default=LIMIT_S,
        metavar="SECONDS",
        help=f"how long a rank may be waited for (default {LIMIT_S:g})",
    )


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for numbers that cannot be used, or flags that do not go together."""
    size = args.num_gpus
    if not 1 <= size <= MOST:
        raise InputError(f"--num_gpus: expected 1 to {MOST}, got {size}")
    mesh.check(size, args.cfg_parallel, args.context_parallel)
    if not 1 <= args.collective_timeout < 1e6:
        raise InputError(f"--collective_timeout: expected 1 or more seconds, got {args.collective_timeout:g}")
    launch.place(size, os.environ)
    if size == 1:
        return
    if getattr(args, "record_inputs", None) is not None:
        raise InputError("--record_inputs: it keeps what one process is given; leave --num_gpus out")
    if ":" in (args.device or ""):
        raise InputError(f"--device {args.device}: each of {size} ranks has a GPU of its own; say --device cuda")


@contextmanager
def ranks(args: argparse.Namespace) -> Iterator[Ranks | None]:
    """The processes that the flags ask for, None where there is one; `args` then say what this one uses. Raises
    `InputError`, and `RankError` for one that fails."""
    here = launch.place(args.num_gpus, os.environ)
    args.ranks = None
    if here.size == 1:
        yield None
        return
    from worldrt.runtime.parallel.ranks import Ranks

    command = [sys.executable, "-m", "worldrt.runtime", *args.argv]
    with launch.joined(here, command, args.collective_timeout) as control:
        if engine_flags.device_of(args).startswith("cuda"):
            args.device = f"cuda:{here.local_rank}"
        elif not args.threads and args.backend in ("onnxruntime", "torch"):
            args.threads = max(1, len(os.sched_getaffinity(0)) // here.local_size)
        args.ranks = Ranks(control, cfg=args.cfg_parallel, context=args.context_parallel, mode=args.cp_mode)
        args.ranks.axis = args.share
        failed = True
        try:
            yield args.ranks
            failed = False
        finally:
            args.ranks.close(failed=failed)


def execution(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Execution` that the flags say."""
    return {"ranks": getattr(args, "ranks", None)}
