"""The flags of `trt-run serve`: those of the server here, those of the world as `trt-run world` has them."""

from __future__ import annotations

import argparse
import os
import ssl
from pathlib import Path
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import world_flags

TOKEN_VARIABLE = "WORLDRT_AUTH_TOKEN"
MOST_VIEWERS = 1000


ABOUT = (
    "Show a world on a page, and let one viewer at a time steer it with W, A, S and D. Open the address that is "
    "printed; Ctrl-C ends it."
)


def add_command(commands: Any) -> None:
    """The subcommand `serve`."""
    parser: Parser = commands.add_parser("serve", help="a page to watch and steer a world", description=ABOUT)
    add(parser)
    world_flags.add_shared(parser)
    parser.set_defaults(verb="serve")


def add(parser: Parser) -> None:
    """Add the groups of the server."""
    add = parser.add_argument_group("where it listens, and to whom").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s: this machine only)")
    add("--port", type=int, default=8000, help="port (%(default)d); 0 for any that is free")
    add(
        "--auth_token",
        metavar="TOKEN",
        help=f"what whoever connects must know (or ${TOKEN_VARIABLE}, which others on this machine do not see); needed "
        "beyond this machine",
    )
    add(
        "--allow_origin", action="append", default=[], metavar="ORIGIN", help="a page of another place that may connect"
    )
    add("--tls_cert", type=Path, metavar="PEM", help="a certificate: browsers decode H.264 over https or on localhost")
    add("--tls_key", type=Path, metavar="PEM", help="its key, if that is in another file")
    add("--max_viewers", type=int, default=32, metavar="N", help="the most who watch at once (%(default)d)")
    add = parser.add_argument_group("where the pictures go besides").add_argument
    add("--to", action="append", default=[], metavar="PLACE", help="such as world.mp4 or rtsp://HOST/PATH; several")
    add("--overwrite", action="store_true", help="replace files that are there")
    add("--record_dir", type=Path, default=Path("output/recordings"), metavar="DIR", help="of the button Record")


def check(args: argparse.Namespace) -> None:
    """Raises `InputError` for a number that cannot be used."""
    if not 0 <= args.port <= 65535:
        raise InputError(f"--port: expected 0 to 65535, got {args.port}")
    if not 1 <= args.max_viewers <= MOST_VIEWERS:
        raise InputError(f"--max_viewers: expected 1 to {MOST_VIEWERS}, got {args.max_viewers}")
    if args.tls_key and not args.tls_cert:
        raise InputError("--tls_key: its certificate is missing; give --tls_cert")


def token(args: argparse.Namespace) -> str | None:
    """The token of the flag or of the environment."""
    given: str | None = args.auth_token if args.auth_token is not None else os.environ.get(TOKEN_VARIABLE)
    return given


def tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    """Raises `InputError` for a certificate that cannot be used."""
    if args.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(args.tls_cert, args.tls_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InputError(f"--tls_cert {args.tls_cert}: cannot be used with its key: {error}") from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not")
