"""Locks between processes that share a folder. A holder that dies lets go."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock `path` alone; the file is made for it and removed after. Yields False where another holds it and
    `wait` is not set. Raises `OSError` where the file cannot be made."""
    handle = _acquire(path, wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone, and makes another
            os.close(handle)


def _acquire(path: Path, wait: bool) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is(path, handle):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


class Hold:
    """A shared claim on a file that is being read: it lasts until `release`, or until nothing refers to it."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where the file cannot be opened, or was removed while it was claimed."""
        self._file = path.open("rb", buffering=0)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_SH)  # who is about to remove the file is waited for
        if not _is(path, self._file.fileno()):
            self._file.close()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def release(self) -> None:
        self._file.close()


@contextmanager
def unheld(path: Path) -> Iterator[bool]:
    """Whether no `Hold` of any process is on a file; meanwhile none gets on it."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb", buffering=0))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError as error:
            free = isinstance(error, FileNotFoundError)
        yield free


def is_held(path: Path) -> bool:
    """Whether a `Hold` of any process, or a lock, is on a file."""
    with unheld(path) as free:
        return not free
