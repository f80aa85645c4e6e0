"""The plan cache: engine plans under the hash of everything that they were made of.

    <digest>.plan    the plan
    <digest>.json    its record: the key in plain words, size and hash of the plan, the report of its build
    <digest>.jit     what TensorRT-RTX has compiled of it at run time, for this GPU
    <digest>.lock    while one process builds it and others wait
    content.json     hashes of weights (worldrt.engine.content)
    timing-*.bin     what TensorRT measured (`PlanCache.timing_path`)

A plan is taken only if its record is whole, the key in it equals the wanted one field by field, and size and hash of
the plan are those of the record. The time of the record is that of its last use.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from worldrt.engine.cache_folder import check_folder, default_folder, default_limit_bytes, make_folder, unwritable
from worldrt.engine.content import MEMO, ContentHashes, digest_of, file_hash
from worldrt.engine.errors import InputError, OutputError
from worldrt.engine.files import staged_file
from worldrt.engine.locks import file_lock, is_held, unheld
from worldrt.engine.plan_key import PlanKey
from worldrt.engine.plans import BuildReport
from worldrt.engine.record import Entry, Record, damage, read_record, write_record
from worldrt.engine.schema import encode

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_LEFT = re.compile(r"\.*([0-9a-f]{64})(?:-.*|\.lock)")  # a staged file of a staged file has two dots
_LEFT_UNLOCKED = re.compile(r"\.(?:content|timing-[0-9a-f]{16})-.*")
_LONG_S = 3600.0  # more than it takes to write one of those
_log = logging.getLogger(__name__)


class PlanCache:
    """Plans in one folder, at most `limit_bytes` of them; those unused for longest go first.

    `folder` and `limit_bytes` come from the environment by default. Raises `OutputError` for a folder that belongs to
    another user or that others may write to; a missing one is made when the first plan is put.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self.limit_bytes = default_limit_bytes() if limit_bytes is None else limit_bytes
        check_folder(self.folder)
        self.hashes = ContentHashes(self.folder / MEMO)

    def find(self, key: PlanKey) -> Entry | None:
        """The sound plan of a key, marked as used now, or None. Changes nothing else."""
        entry = self.entry(key.digest)
        if entry is None or damage(entry, key) is not None:
            return None
        with suppress(OSError):  # a cache that cannot be written still serves
            os.utime(self._record(key.digest))
        return entry

    @contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Hold one plan's place alone; wait for whoever builds it. Raises `OutputError` in a folder that cannot be
        written."""
        make_folder(self.folder)
        check_folder(self.folder)
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self._lock(digest)))
            except OSError as error:
                raise unwritable(self.folder, error) from error
            yield

    def is_locked(self, digest: str) -> bool:
        """Whether someone holds one plan's place just now."""
        return is_held(self._lock(digest))

    def put(self, key: PlanKey, name: str, make: Callable[[Path], BuildReport]) -> Entry:
        """Have `make` write a plan, and keep it whole or not at all; the caller holds the lock. Then plans unused for
        longest are removed until the limit is kept.

        Raises `OutputError` where the disk is full, and whatever `make` raises.
        """
        digest = key.digest
        self._clear(digest)
        note, part = (staged_file(path, overwrite=True) for path in (self._record(digest), self.plan_path(digest)))
        with note as record, part as plan:  # the plan gets its name first
            report = make(plan)
            size, sha256 = plan.stat().st_size, file_hash(plan)
            write_record(record, Record(key, name, sha256, size, time.time(), report))
        self.evict(keep=digest)
        entry = self.entry(digest)
        if entry is None:
            raise OutputError(f"{self.folder}: the plan of {name} was removed as soon as it was made; try again")
        return entry

    def discard(self, digest: str, reason: str) -> None:
        """Remove a plan that proved unsound, with a warning; the caller holds the lock."""
        _log.warning("%s: %s; it is built again", self.plan_path(digest), reason)
        self._clear(digest)

    def entries(self) -> list[Entry]:
        """All entries, the one used last first."""
        names = {path.stem for path in _listed(self.folder) if path.suffix in (".plan", ".json", ".jit")}
        found = (self.entry(name) for name in names if _DIGEST.fullmatch(name))
        return sorted((entry for entry in found if entry is not None), key=lambda entry: -entry.used_s)

    def resolve(self, prefix: str) -> Entry:
        """The entry whose digest begins so. Raises `InputError` unless there is exactly one."""
        if not _PREFIX.fullmatch(prefix):
            raise InputError(f"'{prefix[:80]}': expected the first 6 or more hexadecimal digits of a plan's digest")
        found = [entry for entry in self.entries() if entry.digest.startswith(prefix)]
        if len(found) != 1:
            raise InputError(f"'{prefix}': {len(found) or 'no'} plans in {self.folder} begin so")
        return found[0]

    def remove(self, digest: str) -> bool:
        """Remove an entry, unless it is being built or loaded. Raises `OutputError` where it cannot be removed."""
        try:
            with file_lock(self._lock(digest), wait=False) as got, unheld(self.plan_path(digest)) as free:
                if got and free:
                    self._clear(digest)
                return got and free
        except OSError as error:
            raise OutputError(f"{self.folder}: nothing can be removed: {error.strerror}") from error

    def evict(self, keep: str | None = None) -> list[Entry]:
        """Remove entries, unused for longest first, until the rest are within the limit: never `keep`, nor one that is
        being built or loaded. Returns those removed."""
        self.sweep()
        entries = self.entries()
        total, removed = sum(entry.nbytes for entry in entries), []
        for entry in reversed(entries):
            if total <= self.limit_bytes:
                break
            if entry.digest != keep and self._removed(entry):
                total -= entry.nbytes
                removed.append(entry)
        return removed

    def _removed(self, entry: Entry) -> bool:
        """Remove an entry if that can be done: one that stays is no reason to lose the plan that was just made."""
        try:
            return self.remove(entry.digest)
        except OutputError as error:
            _log.warning("%s", error)
            return False

    def verify(self) -> Iterator[tuple[Entry, str | None]]:
        """Every entry that is not being built just now, and what is wrong with it or None. Reads all plans whole."""
        for entry in self.entries():
            found: Entry | None = entry
            reason = damage(entry)
            if reason is not None:  # or it was made or removed while it was read
                with suppress(OSError), file_lock(self._lock(entry.digest), wait=False) as got:
                    found = self.entry(entry.digest) if got else None
                    reason = None if found is None else damage(found)
            if found is not None:
                yield found, reason

    def sweep(self) -> None:
        """Remove what killed processes left half-written."""
        listed = _listed(self.folder)
        for path in listed:
            with suppress(OSError):
                if _LEFT_UNLOCKED.fullmatch(path.name) and path.stat().st_mtime < time.time() - _LONG_S:
                    path.unlink()
        left = {found[1] for path in listed if (found := _LEFT.fullmatch(path.name))}
        for digest in left:
            with suppress(OSError), file_lock(self._lock(digest), wait=False) as got:
                for path in self._staged(digest) if got else ():
                    path.unlink(missing_ok=True)

    def _clear(self, digest: str) -> None:
        """Remove everything under a digest, also what a killed process left. Raises `OutputError`."""
        for path in (*self._paths(digest), *self._staged(digest)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{path}: cannot be removed: {error.strerror}") from error

    def _staged(self, digest: str) -> Iterator[Path]:
        return self.folder.glob(f".*{digest}-*")

    def entry(self, digest: str) -> Entry | None:
        """What lies under a digest, sound or not; None where nothing does."""
        paths = [path for path in self._paths(digest) if path.exists()]
        if not paths:
            return None
        try:
            stats = [path.stat() for path in paths]
        except FileNotFoundError:  # removed meanwhile
            return None
        size = sum(found.st_size for found in stats)
        return Entry(digest, self.plan_path(digest), read_record(self._record(digest)), size, stats[0].st_mtime)

    def plan_path(self, digest: str) -> Path:
        """Where a plan is, or would be."""
        return self.folder / f"{digest}.plan"

    def timing_path(self, key: PlanKey) -> Path:
        """Where TensorRT remembers its measurements: one file for each library version and kind of GPU."""
        return self.folder / f"timing-{digest_of([key.library, key.library_version, encode(key.target)])[:16]}.bin"

    def _paths(self, digest: str) -> list[Path]:
        """What lies under a digest, the record first, so that a plan that goes is not taken."""
        return [self._record(digest), self.plan_path(digest), self.plan_path(digest).with_suffix(".jit")]

    def _record(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"

    def _lock(self, digest: str) -> Path:
        return self.folder / f"{digest}.lock"


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unwritable(folder, error) from error
