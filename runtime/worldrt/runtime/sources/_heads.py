"""What the heads of JPEG, PNG, WebP, GIF, AVI and Matroska files say that FFmpeg keeps to itself.

FFmpeg refuses a picture that is too large without saying so, gives no mirrored orientations (PyAV up to 18.1), and
reads an AVI or a Matroska file that was cut short as if it ended there.
JPEG: ITU-T T.81 annex B; PNG: ISO/IEC 15948; WebP: RFC 9649; Matroska: RFC 8794 and 9559; EXIF: CIPA DC-008, a TIFF
header and its first directory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

ORIENTATION = 0x0112
MOST_PARTS = 10_000  # of a file: more is not a head
MOST_BYTES = 1 << 16  # of a part: EXIF holds no more in a JPEG
_FRAME_HEADS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG and DAC


@dataclass
class Head:
    """Size in pixels as stored, 0 where it is not found; the EXIF orientation, 1 where there is none."""

    width: int = 0
    height: int = 0
    orientation: int = 1
    animated_webp: bool = False
    length_bytes: int = 0  # of the file, where its head says it


def head_of(file: BinaryIO) -> Head:
    """Read the head of an open file; one of another format, or a damaged one, gives what could be read."""
    file.seek(0)
    magic = file.read(16)
    head = Head()
    try:
        if magic.startswith(b"\xff\xd8"):
            _jpeg(file, head)
        elif magic.startswith(b"\x89PNG\r\n\x1a\n"):
            _png(file, head)
        elif magic[:4] == b"RIFF" and magic[8:12] == b"WEBP":
            _webp(file, head)
        elif magic[:4] == b"RIFF" and magic[8:12] == b"AVI ":
            head.length_bytes = 8 + int(struct.unpack_from("<I", magic, 4)[0])
        elif magic.startswith(b"GIF8"):
            head.width, head.height = struct.unpack_from("<HH", magic, 6)
        elif magic.startswith(b"\x1aE\xdf\xa3"):
            _matroska(file, head)
    except (struct.error, OSError):  # it ends too early: the decoder will say so
        pass
    return head


def _jpeg(file: BinaryIO, head: Head) -> None:
    file.seek(2)
    for _ in range(MOST_PARTS):
        mark, kind = struct.unpack(">BB", file.read(2))
        while kind == 0xFF:  # fill bytes
            (kind,) = struct.unpack(">B", file.read(1))
        if mark != 0xFF or kind in (0xD9, 0xDA):
            return
        if kind == 0x01 or 0xD0 <= kind <= 0xD8:  # they stand alone
            continue
        (length,) = struct.unpack(">H", file.read(2))
        part = file.read(length - 2) if length >= 2 else b""
        if kind == 0xE1 and part.startswith(b"Exif\0\0"):
            head.orientation = _orientation(part[6:])
        elif kind in _FRAME_HEADS:
            head.height, head.width = struct.unpack_from(">HH", part, 1)


def _png(file: BinaryIO, head: Head) -> None:
    for name, part in _chunks(file, ">I4s", start=8, after=4, even=False):
        if name == b"IHDR":
            head.width, head.height = struct.unpack_from(">II", part)
        elif name == b"eXIf":
            head.orientation = _orientation(part)


def _webp(file: BinaryIO, head: Head) -> None:
    for name, part in _chunks(file, "<4sI", start=12, after=0, even=True):
        if name == b"VP8X":
            head.animated_webp = bool(part[0] & 0x02)
            head.width, head.height = (1 + int.from_bytes(part[at : at + 3], "little") for at in (4, 7))
        elif name == b"VP8 ":
            head.width, head.height = (value & 0x3FFF for value in struct.unpack_from("<HH", part, 6))
        elif name == b"VP8L":
            bits = int.from_bytes(part[1:5], "little")
            head.width, head.height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif name == b"EXIF":
            head.orientation = _orientation(part.removeprefix(b"Exif\0\0"))


def _matroska(file: BinaryIO, head: Head) -> None:
    """The size of the segment, which is the rest of the file; unknown where it was written as it was made."""
    file.seek(4)
    file.seek(_number(file) or 0, 1)
    if file.read(4) == b"\x18S\x80g":
        size = _number(file)
        head.length_bytes = 0 if size is None else file.tell() + size


def _number(file: BinaryIO) -> int | None:
    """A number of EBML: the leading zero bits say how many bytes follow; all ones is unknown."""
    (first,) = struct.unpack(">B", file.read(1))
    more = 8 - first.bit_length()
    bits = 7 * (more + 1)
    value = int.from_bytes(bytes([first]) + file.read(more), "big") & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value


def _chunks(file: BinaryIO, form: str, *, start: int, after: int, even: bool) -> Iterator[tuple[bytes, bytes]]:
    """Name and first bytes of each chunk; `after` bytes follow it, and `even` ones are padded."""
    place = start
    for _ in range(MOST_PARTS):
        file.seek(place)
        first, second = struct.unpack(form, file.read(8))
        name, length = (first, second) if isinstance(first, bytes) else (second, first)
        yield name, file.read(min(length, MOST_BYTES))
        place += 8 + length + after + (length % 2 if even else 0)


def _orientation(tiff: bytes) -> int:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for i in range(entries):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * i)
            if (tag, kind, count) == (ORIENTATION, 3, 1):
                return int(value)
    except struct.error:  # damaged EXIF turns nothing
        pass
    return 1
