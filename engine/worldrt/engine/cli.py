"""What the command lines share: flags in both spellings, errors in one line, a clean end on Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from worldrt.engine.errors import BlockedError, WorldrtError

UNREAD = 1
USER_ERROR = 2
BLOCKED = 3
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Takes `--save_path` and `--save-path` alike, no abbreviations; a wrong flag is one line and exit code 2.

    Subparsers made from it are of the same kind. Declare flags in either spelling; help shows the declared one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **({"allow_abbrev": False} | kwargs))

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        return super().parse_known_args(self._respell(sys.argv[1:] if args is None else list(args)), namespace)

    def _respell(self, args: list[str]) -> list[str]:
        """Flags as they were declared; what is no flag of this parser stays as it is."""
        declared = {_key(flag): flag for flag in self._option_string_actions if flag.startswith("--")}
        end = args.index("--") if "--" in args else len(args)
        return [_respelled(token, declared) for token in args[:end]] + args[end:]

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"error: {message} (see {self.prog} --help)\n")


def _key(flag: str) -> str:
    return flag.replace("-", "_")


def _respelled(token: str, declared: dict[str, str]) -> str:
    if not token.startswith("--"):
        return token
    flag, equals, value = token.partition("=")
    return declared.get(_key(flag), flag) + equals + value


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `main(argv)` and return the exit code: 2 and one line for a mistake of the user, 3 and one line for what the
    guardrail refuses, 130 when interrupted.

    SIGTERM counts as an interruption, and so does a terminal that is closed, so that staged files are removed then
    too. A reader that goes away (`| head`) ends the run without a word.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        with _terminate_as_interrupt():
            code = main(argv) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except BlockedError as error:
        print(f"blocked: {' '.join(str(error).split())}", file=sys.stderr)
        return BLOCKED
    except WorldrtError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except MemoryError as error:
        print(f"error: out of memory: {error or 'no more to be had'}; ask for something smaller", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        _drop_stdout()
        return UNREAD
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _drop_stdout()
        print(f"error: cannot be written: {error}; free some space", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was kept", file=sys.stderr)
        return INTERRUPTED
    finally:
        if argv is None:  # the process ends now: a last look for garbage would take seconds after an export
            gc.freeze()


def _drop_stdout() -> None:
    """What could not be written there would be tried again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    named = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))  # Windows has no SIGHUP
    before = {number: signal.getsignal(number) for number in named if number is not None}
    changed = {n: old for n, old in before.items() if old not in (None, signal.SIG_IGN)}  # nohup ignores SIGHUP
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, old in changed.items():
            signal.signal(number, old)
