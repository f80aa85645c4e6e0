"""The flags of `trt-run` that put models into pools of Ray, and the environment that users of The Matrix have set."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import FILE_NAME
from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime.engine_flags import device_of

DIT, VAE, MODEL = "NUM_GPUS_DIT", "NUM_GPUS_VAE", "MODEL_PATH"
MOST = 64


def add_world(parser: Parser) -> None:
    """Add the group of a world."""
    add = parser.add_argument_group("pools over GPUs and machines, by Ray").add_argument
    _add_ray(add)
    add("--num_gpus_dit", type=int, metavar="N", help=f"share the transformer among N GPUs, ${DIT} by default, or 1")
    add("--num_gpus_vae", type=int, metavar="N", help=f"of the decoder in so many parts, ${VAE} by default, or 1")
    add("--ray_window", type=int, metavar="ROWS", help="rows under way at a time: 1 live, 3 into a file")
    add(
        "--ray_checkpoint",
        type=int,
        default=16,
        metavar="N",
        help="rows, or latents, between checkpoints (%(default)d)",
    )
    add("--ray_spare", action="store_true", help="have a loaded worker wait in each pool, for one that is lost")


def add_batch(parser: Parser) -> None:
    """Add the group of a task that makes batches."""
    _add_ray(parser.add_argument_group("a batch over GPUs and machines, by Ray").add_argument)


def _add_ray(add: Callable[..., Any]) -> None:
    add("--ray", action="store_true", help="on a Ray cluster: of this machine, for this run, unless one is named")
    add("--ray_address", metavar="HOST:PORT", help="a cluster that is there: 'auto', or what 'ray start' printed")


def check_world(args: argparse.Namespace) -> None:
    """Raises `InputError` for what cannot be used; takes the defaults of the environment."""
    _check_ray(args)
    if not args.ray:
        for flag in ("num_gpus_dit", "num_gpus_vae", "ray_window"):
            if getattr(args, flag) is not None:
                raise InputError(f"--{flag}: it is about pools; add --ray")
        if args.ray_spare:
            raise InputError("--ray_spare: it is about pools; add --ray")
        return
    if getattr(args, "conditions_only", False):
        raise InputError("--ray: --conditions_only runs no model; leave one of them out")
    args.num_gpus_dit = _count("num_gpus_dit", args.num_gpus_dit, DIT)
    args.num_gpus_vae = _count("num_gpus_vae", args.num_gpus_vae, VAE)
    for flag, most in (("ray_window", 64), ("ray_checkpoint", 100_000)):
        value = getattr(args, flag)
        if value is not None and not 1 <= value <= most:
            raise InputError(f"--{flag}: expected 1 to {most}, got {value}")
    _take_model(args)


def check_batch(args: argparse.Namespace) -> None:
    """Raises `InputError` for what cannot be used."""
    if not hasattr(args, "ray"):
        return  # of a command that makes no batches
    _check_ray(args)
    if not args.ray:
        return
    if args.batch_input_json is None:
        raise InputError("--ray: it spreads the items of a batch; give --batch_input_json, or leave --ray out")
    if args.benchmark:
        raise InputError("--benchmark: it measures one process; leave --ray out")
    if not 1 <= args.num_gpus <= MOST:
        raise InputError(f"--num_gpus: expected 1 to {MOST}, got {args.num_gpus}")


def gpus_of(args: argparse.Namespace) -> int:
    """GPUs of a worker: Ray gives each its own. Raises `InputError` where the flags name one."""
    device = device_of(args)
    if ":" in device:
        raise InputError(f"--device {device}: Ray chooses the GPU of each worker; say --device cuda")
    return int(device.startswith("cuda"))


def _check_ray(args: argparse.Namespace) -> None:
    if args.ray_address is not None:
        if not args.ray:
            raise InputError("--ray_address: it names a cluster of Ray; add --ray")
        if args.ray_address.startswith("ray://"):
            raise InputError("--ray_address: run this on a machine of the cluster, and say 'auto' or HOST:PORT")


def _count(flag: str, given: int | None, variable: str) -> int:
    text = os.environ.get(variable, "") if given is None else str(given)
    name = f"--{flag}" if given is not None else f"${variable}"
    if text and not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST):
        raise InputError(f"{name}: expected a number of GPUs from 1 to {MOST}, got '{text[:20]}'")
    return int(text or 1)


def _take_model(args: argparse.Namespace) -> None:
    """$MODEL_PATH: a bundle, or the checkpoint of the one that is found."""
    named = os.environ.get(MODEL)
    if not named or args.bundle or args.model:
        return
    if (Path(named) / FILE_NAME).is_file():
        args.bundle = [named]
    elif not Path(named).is_dir():
        raise InputError(f"${MODEL}: expected the folder of a bundle or of a checkpoint, '{named[:200]}' is none")
    elif not args.checkpoint:
        args.checkpoint = [named]
