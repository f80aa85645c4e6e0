"""Protobuf messages by hand, so that ONNX files can be read and changed without the onnx package.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a message: number and content; other fields are passed over. Raises `ValueError`
    or `IndexError` for what is no message."""
    for found, content in fields(data):
        if not isinstance(content, int):
            yield found, content


def fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message: number, and content or value; those of fixed width are passed over. Raises as `messages`
    does."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        size, at = _read_varint(data, at) if kind == _LENGTH else ({_FIXED64: 8, _FIXED32: 4}.get(kind, -1), at)
        if not 0 <= size <= len(data) - at:
            raise ValueError("cut short, or of an unknown wire type")
        if kind == _LENGTH:
            yield tag >> 3, data[at : at + size]
        at += size


def field(name: int, content: bytes | memoryview) -> bytes:
    """A length-delimited field of number `name`."""
    return b"".join((varint(name << 3 | 2), varint(len(content)), content))


def number(name: int, value: int) -> bytes:
    """A field that is a whole number from 0 up."""
    return varint(name << 3) + varint(value)


def varints(data: memoryview) -> list[int]:
    """A packed field of whole numbers."""
    found, at = [], 0
    while at < len(data):
        value, at = _read_varint(data, at)
        found.append(value)
    return found


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def varint(value: int) -> bytes:
    """Seven bits to a byte, the least first; the eighth says that more follow."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
