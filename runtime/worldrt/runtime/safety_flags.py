"""The flags of `trt-run` that are about the guardrail."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime.models import Models
from worldrt.runtime.safety.guardrail import Guardrail
from worldrt.runtime.safety.libraries import torch_device
from worldrt.runtime.safety.opening import VARIABLE, needs_models, open_guard


def add(parser: Parser) -> None:
    """Add the group of flags."""
    add = parser.add_argument_group("guardrail").add_argument
    add("--disable_guardrail", action="store_true", help="look at no prompt and no frame")
    add("--guardrail_path", type=Path, metavar="DIR", help=f"the weights of the guardrail; default: ${VARIABLE}")
    add("--blocklist", type=Path, metavar="FILE", help="further words and phrases to refuse, one to a line")
    add("--offload_guardrail", action="store_true", help="have its models on the GPU only while they check")


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for flags that would have no effect."""
    if args.disable_guardrail:
        for flag in ("guardrail_path", "blocklist"):
            if getattr(args, flag) is not None:
                raise InputError(f"--{flag}: it has no effect with --disable_guardrail; leave one of them out")


def make(args: argparse.Namespace, models: Models) -> Guardrail | None:
    """The guard that the flags describe, nothing of it loaded. Raises what is missing."""
    if args.disable_guardrail:
        return None
    device, offload = models.execution.device, args.offload_guardrail or models.execution.offload
    guard = open_guard(
        args.guardrail_path,
        blocklist=args.blocklist,
        models=needs_models(models.bundles),
        device=device,
        offload=offload,
    )
    if guard.has_models and device != "cpu" and torch_device(device) == "cpu":
        print("warning: torch sees no GPU: the guardrail checks on the CPU, which is slow", file=sys.stderr)
    return guard
