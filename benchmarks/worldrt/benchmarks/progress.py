"""What a measurement says while it runs."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any


def say(args: Namespace) -> Any:
    """Progress, on standard error; nothing with `--quiet`."""
    return (lambda text: None) if args.quiet else (lambda text: print(text, file=sys.stderr, flush=True))
