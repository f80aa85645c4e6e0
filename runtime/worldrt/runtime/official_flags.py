"""Flags of the official scripts that have another place here, no effect, or no counterpart."""

from __future__ import annotations

import argparse

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError

_ELSEWHERE = {
    "load_ema": "EMA weights are chosen when exporting: trt-export --load_ema",
    "downcast_text_encoder": "precision is chosen when exporting: trt-export --precision bf16",
    "use_fast_tokenizer": "this version has no such image tokenizer; leave the flag out",
}
_MODELS = {"gr00t_variant": "a post-trained model is a bundle: trt-export --dit_path FILE, then --bundle DIR"}


def add(parser: Parser) -> None:
    """Add the group of flags."""
    add = parser.add_argument_group("flags of the official scripts").add_argument
    add("--gr00t_variant", default="", metavar="NAME", help="not here; says what to do instead")
    for flag in _ELSEWHERE:
        add(f"--{flag}", action="store_true", help="not here; says what to do instead")


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for a flag that asks for what this version does not have, or has elsewhere."""
    for flag, instead in (_ELSEWHERE | _MODELS).items():
        if getattr(args, flag):
            raise InputError(f"--{flag}: {instead}")
