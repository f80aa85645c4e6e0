"""JSON to frozen dataclasses and back, with errors that name the place: `vae.graphs.encode_first: expected ...`."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_LARGEST = 1e300  # of a number; a larger integer has no float


class SchemaError(ValueError):
    """The data does not fit the dataclass; the text starts with the place."""


def parse_json(text: str) -> Any:
    """JSON as the standard has it: no NaN, no infinity, no key twice. Raises `ValueError`."""

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not a number of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' stands there twice")
        return made

    try:
        return json.loads(text, parse_constant=constant, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def decode(kind: type[T], data: object, where: str = "") -> T:
    """Build `kind` from parsed JSON; every key is checked, none may be unknown. Raises `SchemaError`."""
    result: T = _decode(kind, data, where)
    return result


def encode(value: object) -> Any:
    """The inverse of `decode`: dictionaries, lists and plain values; fields that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: encode(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, where)
    if origin is Literal:
        return _expect(data in args, data, where, data, "one of " + ", ".join(map(repr, args)))
    if origin in (Union, types.UnionType):
        return _decode_union(args, data, where)
    if origin is tuple:
        _expect(isinstance(data, list), data, where, data, "a list")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
        _expect(len(data) == len(args), data, where, data, f"a list of {len(args)}")
        return tuple(_decode(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(args, data, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(data, dict), data, where, data, "an object")
        return {_decode(str, key, where): _decode(args[1], item, _join(where, key)) for key, item in data.items()}
    if kind is Path:
        return Path(_decode(str, data, where))
    if kind is float:
        number = isinstance(data, (int, float)) and not isinstance(data, bool) and abs(data) < _LARGEST
        return _expect(number, data, where, float(data) if number else data, "a number")
    fits = isinstance(data, kind) and (kind is bool or not isinstance(data, bool))
    if kind is str and fits:
        _expect(_is_text(data), data, where, data, "a text of Unicode characters, none of them 0")
    return _expect(
        fits,
        data,
        where,
        data,
        {str: "a text", int: "an integer", bool: "true or false"}.get(kind, str(kind)),
    )


def _is_text(text: str) -> bool:
    """Whether a string could name a file: no character 0, no half of a surrogate pair but Python's stand-ins for bytes
    that are not UTF-8."""
    try:
        text.encode("utf-8", "surrogateescape")
        return "\0" not in text
    except UnicodeEncodeError:
        return False


def _decode_union(args: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in args:
        return None
    failures = []
    for kind in args:
        try:
            return _decode(kind, data, where)
        except SchemaError as error:
            failures.append(error)
    raise failures[0]


def _decode_dataclass(kind: Any, data: Any, where: str) -> Any:
    _expect(isinstance(data, dict), data, where, data, "an object")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in data:
        if key not in fields:
            raise SchemaError(f"{_join(where, key)}: unknown key; known: {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name in data:
            values[name] = _decode(hints[name], data[name], _join(where, name))
        elif not optional:
            raise SchemaError(f"{_join(where, name)}: missing")
    return kind(**values)


def _expect(fits: bool, data: Any, where: str, value: Any, expected: str) -> Any:
    if not fits:
        raise SchemaError(f"{where or 'top level'}: expected {expected}, got {str(data)[:80]!r}")
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
