"""Several processes that train one network: each draws its own batch, and they share what the gradients say.

On a CPU that is also busy with other things this is much faster than threads, which wait for each other hundreds of
times in a step instead of twice.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def together(work: Callable[[Any], None], args: Any, workers: int) -> None:
    """Run `work(args)` in so many processes of one thread each; in this one if it is one."""
    if workers == 1:
        return work(args)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start: Any = vars(torch.multiprocessing)["start_processes"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that they end with this one
    start(_join, (work, args, workers, port), workers, daemon=True, start_method="spawn")
    return None


def size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


def _join(number: int, work: Callable[[Any], None], args: Any, workers: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=number, world_size=workers)
    work(args)
    dist.destroy_process_group()
