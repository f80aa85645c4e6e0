"""The flags of `trt-run` that say which models run, and where."""

from __future__ import annotations

import argparse
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import engine_flags, natten
from worldrt.runtime.changes import DIT_FLAGS, changes_of, is_bundle
from worldrt.runtime.locate import find_bundles
from worldrt.runtime.models import Models

MAX_THREADS = 1024


def add(parser: Parser) -> None:
    """Add the groups of flags, those of engines too."""
    add = parser.add_argument_group("which model, and how it runs").add_argument
    add("--model_size", help="a bundle of the folder bundles, or of $WORLDRT_BUNDLES: 2B by default, or the only one")
    add("--bundle", action="append", default=[], metavar="DIR", help="a bundle; twice where two hold one model each")
    add("--checkpoint", action="append", default=[], metavar="DIR", help="where the weights of a bundle lie now")
    for flag in DIT_FLAGS:
        add(f"--{flag}", default="", metavar="PLACE", help="post-trained weights: .safetensors, or a bundle")
    add("--lora", action="append", default=[], metavar="FILE[:SCALE]", help="a LoRA of the model; several add up")
    add("--backend", default="onnxruntime", help="onnxruntime, tensorrt, tensorrt_rtx, torch or null")
    add("--device", help="cpu, cuda or cuda:1; default: cuda for tensorrt and tensorrt_rtx, else cpu")
    add("--threads", type=int, default=0, help="threads of onnxruntime or torch; 0 for their own choice")
    add("--cfg", choices=("batched", "sequential"), default="batched", help="sequential needs less memory")
    add("--natten", action="store_true", help="the sparse video model: 720p and 16:9, of 2B and 14B")
    add("--offload_text_encoder", action="store_true", help="let the text encoder go once the prompt is encoded")
    engine_flags.add(parser)


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for a number that cannot be used, or a flag that would have no effect."""
    engine_flags.check(args)
    if not 0 <= args.threads <= MAX_THREADS:
        raise InputError(f"--threads: expected 0 to {MAX_THREADS}, got {args.threads}")


def open_models(args: argparse.Namespace, **execution: Any) -> Models:
    """The bundles that the flags name. `execution`: more fields of `Execution`."""
    named = [getattr(args, flag) for flag in DIT_FLAGS]
    folders = [place for place in named if place and is_bundle(place)] + args.bundle
    options = {"threads": args.threads} if args.threads and args.backend in ("onnxruntime", "torch") else {}
    models = Models.open(
        folders or natten.ordered(find_bundles(args.model_size), args.natten),
        args.checkpoint,
        changes_of(args),
        backend=args.backend,
        guidance=args.cfg,
        offload_text=args.offload_text_encoder,
        options=options,
        **engine_flags.execution(args),
        **execution,
    )
    natten.check(models, args.verb, args.natten, named=bool(folders))
    return models
