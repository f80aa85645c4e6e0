"""The flags of `trt-run` about the models that read and look: the prompt refiner and the critic."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError

if TYPE_CHECKING:
    from worldrt.runtime.reason.chat import Chat
    from worldrt.runtime.reason.critic import Critic
    from worldrt.runtime.reason.refine import Refiner

MODEL = "nvidia/Cosmos-Reason1-7B"
TIMEOUT_S = 600.0
FRAMES = 16


def add_refiner(parser: Parser) -> None:
    """Add the group of the prompt refiner."""
    add = _add_model(parser, "refiner", "prompt refiner: rewrites the prompt; on where a model is named").add_argument
    add("--disable_prompt_refiner", action="store_true", help="take the prompt as it is given")
    add("--offload_prompt_refiner", action="store_true", help="keep its weights on the host between prompts")


def add_critic(parser: Parser) -> None:
    """Add the group of the critic."""
    _add_model(parser, "critic", "critic: looks for anomalies in the videos", "--checkpoint_dir")


def _add_model(parser: Parser, who: str, title: str, *aliases: str) -> Any:
    group = parser.add_argument_group(title)
    add, variable = group.add_argument, f"WORLDRT_{who.upper()}"
    add(f"--{who}_path", *aliases, type=Path, metavar="DIR", help=f"a folder with {MODEL} (or ${variable}_PATH)")
    add(f"--{who}_url", help=f"a server with the protocol of OpenAI, http://HOST/v1 (or ${variable}_URL); "
        f"its key is in ${variable}_API_KEY")  # fmt: skip
    add(f"--{who}_model", metavar="NAME", help=f"the model's name on that server (or ${variable}_MODEL)")
    add(f"--{who}_prompt", type=Path, metavar="FILE", help="another instruction than our own")
    add(f"--{who}_device", metavar="DEVICE", help="of a folder's model: cuda where there is one, else cpu")
    add(f"--{who}_shown", choices=("images", "video"), default="images", help="how a server is shown a clip")
    add(f"--{who}_frames", type=int, default=FRAMES, metavar="N", help="the most images of a clip (%(default)d)")
    add(f"--{who}_timeout", type=float, default=TIMEOUT_S, metavar="S", help="for an answer of a server (%(default)g)")
    return group


def make_refiner(args: argparse.Namespace, fits: Callable[[str], bool]) -> Refiner | None:
    """The refiner that the flags or the environment name; None where none is, or it is switched off.

    `fits`: whether the text encoder reads all of a text. Raises `InputError` or `BackendError`.
    """
    if getattr(args, "disable_prompt_refiner", True):
        return None
    chat = _chat(args, "refiner", offload=args.offload_prompt_refiner)
    if chat is None:
        if args.refiner_prompt or args.refiner_model:
            raise InputError("--refiner_prompt, --refiner_model: no refiner; give --refiner_path or --refiner_url")
        return None
    from worldrt.runtime.reason.refine import Refiner

    return Refiner(chat, args.refiner_prompt, fits, lambda text: print(f"warning: {text}", file=sys.stderr))


def make_critic(args: argparse.Namespace) -> Critic:
    """Raises `InputError` where no critic is named, and `BackendError` where it cannot be had."""
    chat = _chat(args, "critic", offload=False)
    if chat is None:
        raise InputError(
            f"no critic: give --critic_path DIR with the model {MODEL}, or --critic_url and --critic_model of a server"
        )
    from worldrt.runtime.reason.critic import Critic

    return Critic(chat, args.critic_prompt)


def _chat(args: argparse.Namespace, who: str, *, offload: bool) -> Chat | None:
    path, url = (_named(args, who, kind) for kind in ("path", "url"))
    if getattr(args, f"{who}_path") and getattr(args, f"{who}_url"):
        raise InputError(f"--{who}_path, --{who}_url: give one of them")
    if path and not getattr(args, f"{who}_url"):
        from worldrt.runtime.reason.local import LocalChat

        return LocalChat(Path(path), getattr(args, f"{who}_device"), offload=offload)
    return _endpoint(args, who, url) if url else None


def _endpoint(args: argparse.Namespace, who: str, url: str) -> Chat:
    from worldrt.runtime.reason.endpoint import EndpointChat, Server

    model, timeout_s = _named(args, who, "model"), getattr(args, f"{who}_timeout")
    if not model:
        raise InputError(f"--{who}_model: the name of the model on the server of --{who}_url is missing")
    if not 0 < timeout_s <= 86400:
        raise InputError(f"--{who}_timeout: expected seconds above 0 and up to a day, got {timeout_s:g}")
    frames = getattr(args, f"{who}_frames")
    if not 1 <= frames <= 768:
        raise InputError(f"--{who}_frames: expected 1 to 768, got {frames}")
    key = os.environ.get(f"WORLDRT_{who.upper()}_API_KEY", "").strip() or None
    return EndpointChat(Server(url, model, key, getattr(args, f"{who}_shown"), frames, timeout_s))


def _named(args: argparse.Namespace, who: str, kind: str) -> str:
    """A flag, else its variable."""
    environment: Mapping[str, str] = os.environ
    return str(getattr(args, f"{who}_{kind}") or environment.get(f"WORLDRT_{who.upper()}_{kind.upper()}", "").strip())
