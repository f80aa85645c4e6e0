"""What a critic's answer says: tags are looked for one by one, and everything else is text.

    <think><overview>...</overview>
    <component name="..."><analysis>...</analysis><anomaly>Yes</anomaly>
    <box start="0.5" end="1.5" left="100" top="200" right="300" bottom="400">...</box></component></think>
    <answer>Yes</answer>

Models forget tags, close them wrongly and write `<` and `&` as they please, so this is no XML parser: it takes time
that grows with the length of the text, whatever the text is, and refuses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from itertools import zip_longest
from math import isfinite

_TAG = re.compile(
    r"<(/?)(think|overview|component|analysis|anomaly|box|answer)\b"
    r"""((?:\s+[a-z_]+\s*=\s*(?:"[^"<]*"|'[^'<]*'|[^\s"'<>]+))*\s*/?|[^<>]*)>""",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(r"""\b([a-z]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'/]+))""", re.IGNORECASE)
MOST = 200  # components of an answer, and boxes of a component
SCALE = 1000.0  # coordinates are thousandths of the frame
_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Box:
    """Where and when something is wrong: seconds, None for the clip's own start and end; sides as fractions of the
    frame, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    start_s: float | None = None
    end_s: float | None = None
    note: str = ""


@dataclass
class Component:
    """One thing that was looked at. `anomaly` None: not said."""

    name: str
    analysis: str = ""
    anomaly: bool | None = None
    boxes: list[Box] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """One trial. `anomaly` None: the answer could not be understood."""

    text: str
    anomaly: bool | None
    overview: str
    components: tuple[Component, ...]


def parse(text: str) -> Answer:
    """Read an answer; of several verdicts the last one counts, which may lack its closing tag. Never raises."""
    anomaly, overview, components = None, "", list[Component]()
    for tag, attributes, inner in _opened(text):
        if tag == "answer":
            anomaly = verdict(inner)
        elif tag == "overview":
            overview = overview or inner
        elif tag == "component" and len(components) < MOST:
            components.append(Component(attributes.get("name", "").strip()))
        elif components and tag == "analysis":
            components[-1].analysis = inner
        elif components and tag == "anomaly":
            components[-1].anomaly = verdict(inner)
        elif components and tag == "box" and len(components[-1].boxes) < MOST:
            box = _box(attributes, inner)
            components[-1].boxes += [box] if box else []
    return Answer(text, anomaly, overview, tuple(components))


def verdict(text: str) -> bool | None:
    """True for yes, False for no. A text that begins with neither, or holds both, is none."""
    words = re.findall(r"[a-z]+", text.lower())
    if not words or words[0] not in ("yes", "no") or {"yes", "no"} <= set(words):
        return None
    return bool(words[0] == "yes")


def _opened(text: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Each opening tag: its name, its attributes, and the text up to the next tag."""
    tags = list(_TAG.finditer(text))
    for tag, after in zip_longest(tags, tags[1:]):
        if not tag[1]:
            attributes = {m[1].lower(): unescape(m[2] or m[3] or m[4] or "") for m in _ATTRIBUTE.finditer(tag[3])}
            yield tag[2].lower(), attributes, unescape(text[tag.end() : after.start() if after else None]).strip()


def _box(attributes: dict[str, str], note: str) -> Box | None:
    """None for a box without an area inside the frame, or with sides that are no numbers."""
    sides = [_number(attributes.get(side)) for side in _SIDES]
    if any(side is None for side in sides):
        return None
    left, top, right, bottom = (min(1.0, max(0.0, (side or 0.0) / SCALE)) for side in sides)
    start, end = _number(attributes.get("start")), _number(attributes.get("end"))
    if start is not None and end is not None and end < start:
        start, end = end, start
    return Box(left, top, right, bottom, start, end, note) if left < right and top < bottom else None


def _number(text: str | None) -> float | None:
    """A finite number, `1.5` or `1.5s` or `15%` alike read up to what follows the digits."""
    found = re.match(r"\s*(-?\d{1,12}(?:\.\d{1,12})?)", text or "")
    return float(found[1]) if found and isfinite(float(found[1])) else None
