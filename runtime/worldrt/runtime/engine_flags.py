"""The flags of `trt-run` that are about GPUs and the engines that run there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.engine.plans import BuildOptions
from worldrt.engine.profiles import overrides_of
from worldrt.runtime.engines import BACKENDS, Engines

OF_ENGINES: dict[str, Any] = {
    "plan_cache": None,
    "profile": [],
    "block_weights": "auto",
    "optimization_level": 3,
    "workspace_gb": None,
    "strip_plan": False,
}


def add(parser: Parser) -> None:
    """Add the groups of flags."""
    group = parser.add_argument_group("on a GPU").add_argument
    group(
        "--use_cuda_graphs",
        nargs="?",
        const="on",
        default="auto",
        choices=("auto", "on", "off"),
        help="launch each step as one CUDA graph; auto (default): where that is possible and pays",
    )
    group("--gpu_memory", type=float, metavar="GB", help="the most to hold on the GPU; other weights stay on the host")
    group("--offload", action="store_true", help="let each model go once its part of a run is done")
    group = parser.add_argument_group("engines of tensorrt and tensorrt_rtx, built where none is kept").add_argument
    group("--plan_cache", type=Path, metavar="DIR", help="where plans are; default: $WORLDRT_PLAN_CACHE, or ~/.cache")
    group(
        "--profile",
        nargs="+",
        default=[],
        metavar="AXIS=MIN:OPT:MAX",
        help="ranges of axes, such as rows=10:44:44 frames=24; default: those of the model",
    )
    group(
        "--block_weights",
        default="auto",
        choices=("auto", "inputs", "constants"),
        help="of a transformer in blocks: one engine for all, or one with its weights for each; auto: by size",
    )
    group("--optimization_level", type=int, default=3, choices=range(6), help="more: slower to build")
    group("--workspace_gb", type=float, metavar="GB", help="the most scratch memory of a layer")
    group("--strip_plan", action="store_true", help="keep plans without weights; they are read when one is loaded")


def device_of(args: argparse.Namespace) -> str:
    """The device that was asked for; by default the GPU for backends that need one, else the CPU."""
    return args.device or ("cuda" if args.backend in BACKENDS else "cpu")


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for a flag that would have no effect, or a number that cannot be used."""
    given = [name for name, default in OF_ENGINES.items() if getattr(args, name) != default]
    if given and args.backend not in BACKENDS:
        raise InputError(f"--{given[0]}: it is about engines; the backend is {args.backend}: --backend tensorrt")
    for name in ("gpu_memory", "workspace_gb"):
        value = getattr(args, name)
        if value is not None and not 0 < value < 1e6:
            raise InputError(f"--{name}: expected a number of GB above 0, got {value:g}")
    if args.backend in BACKENDS and not device_of(args).startswith("cuda"):
        raise InputError(f"--device: {args.backend} runs on NVIDIA GPUs, got {args.device}; say --device cuda")
    if device_of(args) == "cpu":
        if args.gpu_memory is not None:
            raise InputError("--gpu_memory: the device is cpu; say --device cuda")
        if args.use_cuda_graphs == "on":
            print("warning: --use_cuda_graphs has no effect on the CPU", file=sys.stderr)


def execution(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Execution` that the flags say. Raises `InputError`."""
    workspace = None if args.workspace_gb is None else int(args.workspace_gb * 1e9)
    build = BuildOptions(args.optimization_level, workspace, strip=args.strip_plan)
    profile = overrides_of(args.profile)
    return {
        "device": device_of(args),
        "cuda_graphs": args.use_cuda_graphs,
        "gpu_memory_gb": args.gpu_memory,
        "offload": args.offload,
        "engines": Engines(args.plan_cache, profile, build, args.block_weights),
    }
