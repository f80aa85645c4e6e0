"""A command in several processes: rank 0 runs it, and the others do their part of what it orders."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from worldrt.engine.cli import USER_ERROR
from worldrt.engine.errors import RankError, WorldrtError
from worldrt.runtime import scale_flags
from worldrt.runtime.parallel.control import HOST_LOST, Control
from worldrt.runtime.parallel.host import Host


def shared(
    args: argparse.Namespace,
    make: Callable[[argparse.Namespace], int],
    others: Callable[[argparse.Namespace, Control], None],
) -> int:
    """`make` in rank 0, and `others` in as many others as the flags say; the exit code of this process. What goes wrong
    is said by rank 0, unless it is lost."""
    rank = 0
    try:
        scale_flags.check(args)
        with scale_flags.ranks(args) as ranks:
            if ranks is None or isinstance(ranks.control, Host):
                return make(args)
            rank = ranks.rank
            others(args, ranks.control)
    except RankError as error:
        if rank == 0 or HOST_LOST in str(error):
            raise
        return USER_ERROR
    except WorldrtError:
        if rank == 0:
            raise
        return USER_ERROR
    return 0
