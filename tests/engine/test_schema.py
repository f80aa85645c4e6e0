import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest

from worldrt.engine.schema import SchemaError, decode, encode


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"]
    shape: tuple[int | str, ...]
    size: tuple[int, int]
    note: str | None = None


@dataclass(frozen=True)
class Outer:
    scale: float
    items: Mapping[str, Inner]
    flag: bool = False


GOOD = {"scale": 7, "items": {"x": {"kind": "a", "shape": ["batch", 16], "size": [1, 2]}}}


def test_round_trip():
    value = decode(Outer, GOOD)
    assert value == Outer(7.0, {"x": Inner("a", ("batch", 16), (1, 2))})
    assert decode(Outer, json.loads(json.dumps(encode(value)))) == value


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"scale": "7"}, "scale: expected a number, got '7'"),
        ({"scale": True}, "scale: expected a number"),
        ({"flag": 1}, "flag: expected true or false"),
        ({"more": 1}, "more: unknown key; known: scale, items, flag"),
        ({"items": {"x": {"kind": "c", "shape": [], "size": [1, 2]}}}, "items.x.kind: expected one of 'a', 'b'"),
        ({"items": {"x": {"kind": "a", "shape": [1.5], "size": [1, 2]}}}, r"items.x.shape\[0\]: expected an integer"),
        ({"items": {"x": {"kind": "a", "shape": [], "size": [1]}}}, "items.x.size: expected a list of 2"),
        ({"items": {"x": {"kind": "a", "shape": []}}}, "items.x.size: missing"),
        ({"items": []}, "items: expected an object"),
    ],
)
def test_errors_name_the_place(change, text):
    with pytest.raises(SchemaError, match=text):
        decode(Outer, GOOD | change)
