"""Hashes of what tensors hold, remembered by the identity of their file.

A hash of a header is no hash of the weights: fine-tunes of one model share it. Reading 28 GB for each start would be
slow, so the hash of a range of bytes is kept with the file's path, device, inode, size and both times of change.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

from worldrt.engine.errors import CheckpointError, OutputError
from worldrt.engine.files import staged_file

Identity = tuple[int, int, int, int, int]
MEMO = "content.json"  # in the folder of plans
RACY_S = 2.0  # a file changed so lately may change again within the same tick of its file system's clock
_CHUNK_BYTES = 1 << 20


class ContentHashes:
    """SHA-256 of ranges of files. `memo` is the JSON file that they are kept in; None keeps none."""

    def __init__(self, memo: Path | None = None) -> None:
        self._memo = memo
        self._known = _read(memo)
        self._fresh: dict[str, dict[str, Any]] = {}

    def of(self, path: Path, offset: int, nbytes: int | None) -> str:
        """The hash of `nbytes` from `offset` on (None: to the end). Raises `CheckpointError` where they cannot be
        read, or change meanwhile."""
        try:
            place, span = os.path.realpath(path), f"{offset}:{'' if nbytes is None else nbytes}"
            with open(place, "rb", buffering=0) as file:
                began, before = time.time(), _identity(file)
                known = self._ranges(self._known, place, before).get(span)
                if known is not None:
                    return known
                result = _hash(file, offset, before[2] - offset if nbytes is None else nbytes)
                if _identity(file) != before:
                    raise CheckpointError(f"{path}: changed while it was read; try again when it is written")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        except EOFError:
            raise CheckpointError(f"{path}: cut short: no {nbytes} bytes at {offset}; fetch the file again") from None
        if began - max(before[3:]) / 1e9 > RACY_S:
            self._ranges(self._known, place, before)[span] = result
            self._ranges(self._fresh, place, before)[span] = result
        return result

    def save(self) -> None:
        """Keep what was learnt, beside what other processes have kept meanwhile. A place that cannot be written is
        passed over: the hashes are only made again."""
        if self._memo is None or not self._fresh:
            return
        kept = {place: entry for place, entry in _read(self._memo).items() if os.path.exists(place)}
        for place, entry in self._fresh.items():
            self._ranges(kept, place, tuple(entry["identity"])).update(entry["ranges"])
        with suppress(OutputError), staged_file(self._memo, overwrite=True) as part:
            part.write_text(json.dumps(kept, indent=0), encoding="utf-8")
        self._fresh = {}

    def _ranges(self, table: dict[str, dict[str, Any]], place: str, identity: Identity) -> dict[str, str]:
        """What is known of a file as it is now; what was known of another one in its place is dropped."""
        entry = table.get(place)
        if entry is None or tuple(entry["identity"]) != identity:
            entry = table[place] = {"identity": list(identity), "ranges": {}}
        ranges: dict[str, str] = entry["ranges"]
        return ranges


def digest_of(value: object) -> str:
    """The SHA-256 of a JSON value in one canonical form: sorted keys, no spaces, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """The SHA-256 of a whole file, read now. Raises `OSError`."""
    with path.open("rb", buffering=0) as file:
        return _hash(file, 0, os.fstat(file.fileno()).st_size)


def _hash(file: RawIOBase, offset: int, nbytes: int) -> str:
    digest, buffer = hashlib.sha256(), bytearray(min(_CHUNK_BYTES, max(1, nbytes)))
    view = memoryview(buffer)
    file.seek(offset)
    while nbytes > 0:
        got = file.readinto(view[: min(nbytes, len(view))])
        if not got:
            raise EOFError
        digest.update(view[:got])
        nbytes -= got
    return digest.hexdigest()


def _identity(file: RawIOBase) -> Identity:
    s = os.fstat(file.fileno())
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns


def _read(memo: Path | None) -> dict[str, dict[str, Any]]:
    """The kept hashes; a damaged file counts as none."""
    try:
        data = json.loads(memo.read_text(encoding="utf-8")) if memo is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return {place: entry for place, entry in data.items() if _sound(entry)} if isinstance(data, dict) else {}


def _sound(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or set(entry) != {"identity", "ranges"}:
        return False
    identity, ranges = entry["identity"], entry["ranges"]
    whole = isinstance(identity, list) and len(identity) == 5 and all(isinstance(n, int) for n in identity)
    return whole and isinstance(ranges, dict) and all(isinstance(v, str) and len(v) == 64 for v in ranges.values())
