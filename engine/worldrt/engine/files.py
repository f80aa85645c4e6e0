"""Writing without half-written results: everything is made beside its place and renamed into it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldrt.engine.errors import OutputError

CLOCKS_S = 5.0  # by which those of machines that share a disk may differ
LONGEST_BYTES = 180  # of a name that a temporary one repeats, so that it fits where the name does


@contextmanager
def staged_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file beside `path`, with its suffix; renamed to `path` at the end, removed on any error.

    Raises `OutputError` where `path` exists (unless `overwrite`), cannot be written, or the disk is full.
    """
    check_place(path, overwrite=overwrite)
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written: it is a folder; give the name of a file")
    handle, name = _explained(
        path, lambda: tempfile.mkstemp(prefix=f".{_short(path.stem)}-", suffix=path.suffix, dir=path.parent)
    )
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())
    part = Path(name)
    try:
        yield part
        _put(part, path, overwrite)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: Path, *, overwrite: bool = False, mark: str = "bundle.json") -> Iterator[Path]:
    """A temporary folder beside `path`; takes its place at the end, removed on any error. Errors as `staged_file`.

    A folder that is there is replaced whole, so only one that is empty or holds a file `mark`.
    """
    check_place(path, overwrite=overwrite)
    if path.is_dir() and any(path.iterdir()) and not (path / mark).is_file():
        raise OutputError(f"{path}: it holds other things (no {mark}) and is not replaced; give another folder")
    part = Path(_explained(path, lambda: tempfile.mkdtemp(prefix=f".{_short(path.name)}-", dir=path.parent)))
    os.chmod(part, 0o777 & ~_umask())
    try:
        yield part
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{_short(path.name)}-old-", dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(part, path)
            shutil.rmtree(old)
        else:
            os.replace(part, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sweep(path: Path, since_s: float) -> None:
    """Remove what a process that was killed left beside `path` of a `staged_file` or a `staged_folder` that it began
    after a time, in seconds since 1970."""
    for staged in (f".{_short(path.stem)}-", path.suffix), (f".{_short(path.name)}-", ""):
        name = re.compile(re.escape(staged[0]) + "[a-z0-9_]{8}" + re.escape(staged[1]))
        for left in path.parent.glob(".*") if path.parent.is_dir() else ():
            if name.fullmatch(left.name) and left.lstat().st_mtime >= since_s - CLOCKS_S:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _put(part: Path, path: Path, overwrite: bool) -> None:
    """Give a finished file its name. What another run put there meanwhile is kept."""
    if not overwrite:
        try:
            os.link(part, path)
            return
        except FileExistsError:
            raise OutputError(f"{path} exists: it was made meanwhile; give another place, or --overwrite") from None
        except OSError:
            pass  # a file system without links
    os.replace(part, path)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raises `OutputError` where `path` exists (unless `overwrite`) or its folder cannot be made or written
    to."""
    try:
        os.fsencode(path)
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise OutputError(f"{path} exists; give another place, or --overwrite to replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(f"{path}: cannot be written: its folder is read-only; give another place")
    except OSError as error:
        raise _output_error(path, error) from error
    except UnicodeEncodeError as error:
        raise OutputError(f"{path}: this locale has no such names of files; set LC_ALL=C.UTF-8") from error


def _short(name: str) -> str:
    return os.fsencode(name)[:LONGEST_BYTES].decode(errors="ignore")


def _explained(path: Path, make):  # type: ignore[no-untyped-def]
    try:
        return make()
    except OSError as error:
        raise _output_error(path, error) from error


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{path}: the disk is full; nothing was kept. Free some space or give another place")
    return OutputError(f"{path}: cannot be written: {error.strerror or error}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def inside(root: Path, relative: str) -> Path:
    """`root/relative`, refused with `ValueError` where it is absolute or leads out of `root`, by `..` or by a link."""
    place = (root / relative).resolve()
    if Path(relative).is_absolute() or not place.is_relative_to(root.resolve()):
        raise ValueError(f"'{relative}' leads out of {root}")
    return root / relative
