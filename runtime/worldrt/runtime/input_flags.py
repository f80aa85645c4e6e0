"""The flag of how pictures and videos are read."""

from __future__ import annotations

import argparse

from worldrt.engine import plugin
from worldrt.engine.cli import Parser
from worldrt.runtime.sources.base import DEFAULT_READER, PACKAGE, check_reader


def add(parser: Parser) -> None:
    """Add the group."""
    parser.add_argument_group("how inputs are read").add_argument(
        "--input_reader",
        choices=plugin.names(PACKAGE),
        default=DEFAULT_READER,
        help="media: PyAV (default), reads nearly everything; dali: NVIDIA DALI, on the GPU where there is one",
    )


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for a reader that is not installed."""
    if args.input_reader != DEFAULT_READER:
        check_reader(args.input_reader)
