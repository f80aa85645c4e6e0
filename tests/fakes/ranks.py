"""`python ranks.py SIZE FOLDER WHAT RANK`: a run whose ranks gather again and again, until RANK does WHAT to itself.

Each rank writes its process id into FOLDER. Rank 0 prints what it hears, as a command line does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from worldrt.engine.device import HostDevice, host_buffer
from worldrt.engine.errors import InputError, RankError
from worldrt.runtime.parallel import launch
from worldrt.runtime.parallel.ranks import Ranks

LIMIT_S = {"stopped": 6.0, "stuck": 6.0}
ROUNDS = 50


def harm(what: str) -> None:
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "stuck":
        time.sleep(600)
    elif what == "failed":
        raise InputError("the disk is on fire")


def main(size: int, folder: Path, what: str, victim: int) -> int:
    here = launch.place(size, os.environ)
    command = [sys.executable, __file__, *sys.argv[1:]]
    try:
        with launch.joined(here, command, LIMIT_S.get(what, 100.0)) as control:
            (folder / str(control.rank)).write_text(str(os.getpid()))
            ranks = Ranks(control)
            failed = True
            try:
                ranks.open(HostDevice())
                everyone = ranks.among(range(size))
                own = host_buffer(np.full(1 << 12, control.rank, np.uint8))
                gather = everyone.all_gather(host_buffer(np.zeros((size, 1 << 12), np.uint8)), own)
                with ranks.rows(HostDevice()) as row_done:
                    for row in range(ROUNDS):
                        gather()
                        row_done()
                        if row == 5 and control.rank == victim:
                            harm(what)
                failed = False
            finally:
                ranks.close(failed=failed)
    except RankError as error:
        if here.rank == 0 or victim == 0:
            print(f"rank {here.rank} hears: {error}", flush=True, file=sys.stderr)
        return 2
    except InputError:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
