"""Where plans are kept, and whom they are taken from: a plan is code that the GPU and the library run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from worldrt.engine.errors import InputError, OutputError

VARIABLE = "WORLDRT_PLAN_CACHE"
LIMIT_VARIABLE = "WORLDRT_PLAN_CACHE_GB"
DEFAULT_LIMIT_GB = 64.0


def default_folder() -> Path:
    """$WORLDRT_PLAN_CACHE, or `worldrt/plans` in $XDG_CACHE_HOME or ~/.cache. Raises `InputError` without a home."""
    named = os.environ.get(VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if named:
            return Path(named).expanduser()
        if os.path.isabs(base):  # the standard has relative ones ignored
            return Path(base, "worldrt", "plans")
        return Path.home() / ".cache" / "worldrt" / "plans"
    except RuntimeError:
        lack = f"${VARIABLE}: no home folder for '{named}'" if named else "no home folder to keep engine plans in"
        raise InputError(f"{lack}; name a folder in ${VARIABLE}") from None


def default_limit_bytes() -> int:
    """$WORLDRT_PLAN_CACHE_GB in bytes, 64 GB by default. Raises `InputError` where it is no number."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < 1e9:
        raise InputError(f"${LIMIT_VARIABLE}: expected gigabytes, such as 64 or 0.5, got '{text}'")
    return int(limit * 1e9)


def make_folder(folder: Path) -> None:
    """Make the folder for its owner alone. Raises `OutputError` where that cannot be done."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def check_folder(folder: Path) -> None:
    """Raises `OutputError` for a folder into which others could have put plans; one that is missing is sound."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(folder, error) from error
    if found.st_uid not in (os.geteuid(), 0):
        raise OutputError(
            f"{folder}: belongs to another user, whose engine plans would run as yours; "
            f"name a folder of your own in ${VARIABLE}"
        )
    if stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise OutputError(
            f"{folder}: others may write here, and their engine plans would run as yours; "
            f"chmod go-w {folder}, or name another folder in ${VARIABLE}"
        )


def unwritable(folder: Path, error: OSError) -> OutputError:
    """The error for a folder that the system refuses."""
    return OutputError(
        f"{folder}: engine plans cannot be kept here: {error.strerror or error}; name another folder in ${VARIABLE}"
    )
