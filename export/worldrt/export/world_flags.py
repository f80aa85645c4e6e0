"""The flags of `trt-export` that are about worlds with controls."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from worldrt.engine.errors import InputError

FAMILIES = {
    "control_sentences": ("matrix", "The Matrix"),
    "control_embeddings": ("matrix", "The Matrix"),
    "clip": ("matrix", "The Matrix"),
    "fold_levels": ("matrix", "The Matrix"),
    "model_config": ("opendwm", "OpenDWM"),
}
"""The family that a flag is about, and its name."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser."""
    group = parser.add_argument_group("worlds with controls")
    group.add_argument(
        "--control_sentences",
        type=Path,
        metavar="PATH",
        help="a copy of the official repository of The Matrix, whose sentences CLIP embeds; parsed, never executed",
    )
    group.add_argument(
        "--control_embeddings", type=Path, metavar="FILE", help="the table of embeddings itself, as safetensors"
    )
    group.add_argument("--clip", type=Path, metavar="DIR", help="the CLIP model; default: below the checkpoint")
    group.add_argument(
        "--fold_levels",
        action="store_true",
        help="make the noise levels of a steady stream, and what follows from them, constants of one graph",
    )
    group.add_argument(
        "--model_config", type=Path, metavar="FILE", help="an official .json of OpenDWM: its network, views, sizes"
    )


def options(args: argparse.Namespace, family: str) -> dict[str, Any]:
    """The same for `plan.Options`. Raises `InputError` where another family is exported."""
    given = {name: getattr(args, name) for name in FAMILIES}
    wrong = next((name for name, value in given.items() if value and FAMILIES[name][0] != family), None)
    if wrong is not None:
        raise InputError(f"--{wrong}: it is about {FAMILIES[wrong][1]}; leave it out")
    if args.control_sentences and args.control_embeddings:
        raise InputError("--control_embeddings: it is made of --control_sentences; give one of them")
    whole = {"form": "whole"} if args.fold_levels and args.form == "auto" else {}
    return given | {"form": args.form} | whole
