"""A review as one HTML file: the video inside it, the counts, each trial, and boxes over the frames they are about.

Nothing is fetched, and the browser is told so; every text from outside goes through Jinja's escaping.
"""

from __future__ import annotations

import importlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from types import ModuleType

from worldrt.engine.errors import BackendError
from worldrt.runtime.reason.answers import Answer, Box, Component
from worldrt.runtime.reason.chat import plain
from worldrt.runtime.reason.clip import Clip
from worldrt.runtime.reason.critic import Review
from worldrt.runtime.reason.pictures import data_url, jpeg_bytes

COLOURS = 6
MOST_BOXES = 1000  # that are drawn
MOST_STILLS = 60


@dataclass(frozen=True)
class Mark:
    """A box on its clip: pixels of the shown frames, seconds, the number of its trial, a colour, and the frame in the
    middle of it as a URL."""

    trial: int
    component: Component
    colour: int
    start_s: float
    end_s: float
    x: float
    y: float
    width: float
    height: float
    note: str
    still: str


def available() -> None:
    """Raises `BackendError` where reports cannot be made."""
    _jinja()


def report(clip: Clip, review: Review, about: Sequence[tuple[str, str]] = ()) -> str:
    """The HTML. `about`: labels and texts that are shown at the top, such as the prompt."""
    jinja = _jinja()
    height, width = clip.frames.shape[1:3]
    style, script = _part("report.css"), _part("report.js")
    page = jinja.Environment(autoescape=True, undefined=jinja.StrictUndefined).from_string(_part("report.html.j2"))
    markup = importlib.import_module("markupsafe").Markup
    box = jinja.Environment(autoescape=True).from_string(_BOX)
    marks = list(_marks(clip, review.answers))
    of_component = {id(mark.component): list[Mark]() for mark in marks}
    for mark in marks:
        of_component[id(mark.component)].append(mark)
    return str(
        page.render(
            policy=_policy(style, script),
            style=markup(style),
            script=markup(script),
            title=plain(clip.path.name),
            score="no verdict" if review.score is None else f"{review.score:.0%}",
            review=review,
            about=about,
            width=width,
            height=height,
            duration_s=clip.duration_s,
            marks=marks,
            marks_of=lambda component: of_component.get(id(component), []),
            boxes=sum(len(component.boxes) for answer in review.answers for component in answer.components),
            video=data_url(clip.path.read_bytes(), "video/mp4"),
            box=lambda mark: markup(box.render(mark=mark, size=width / 36, right=mark.x > width / 2)),
            kind=lambda anomaly: {None: "unclear", True: "bad", False: "good"}[anomaly],
            verdict=lambda anomaly: {None: "no verdict", True: "anomaly", False: "nothing wrong"}[anomaly],
        )
    )


_BOX = (
    '<g class="box c{{ mark.colour }}" data-trial="{{ mark.trial }}" data-start="{{ mark.start_s }}" '
    'data-end="{{ mark.end_s }}"><rect x="{{ mark.x }}" y="{{ mark.y }}" width="{{ mark.width }}" '
    'height="{{ mark.height }}"/><text x="{{ mark.x + (mark.width if right else 0) }}" y="{{ mark.y + size + 2 }}" '
    'dx="{{ -4 if right else 4 }}" text-anchor="{{ "end" if right else "start" }}" font-size="{{ size }}">'
    "{{ (mark.note or mark.component.name)[:40] }}</text></g>\n"
)


def _marks(clip: Clip, answers: Sequence[Answer]) -> Iterator[Mark]:
    """The first boxes of all trials; a component has one colour."""
    found = [
        (trial, component, i, box)
        for trial, answer in enumerate(answers, 1)
        for i, component in enumerate(answer.components)
        for box in component.boxes
    ]
    for number, (trial, component, i, box) in enumerate(found[:MOST_BOXES]):
        yield _mark(clip, trial, component, i % COLOURS, box, shown=number < MOST_STILLS)


def _mark(clip: Clip, trial: int, component: Component, colour: int, box: Box, *, shown: bool) -> Mark:
    height, width = clip.frames.shape[1:3]
    start = min(max(box.start_s or 0.0, 0.0), clip.duration_s)
    end = min(max(clip.duration_s if box.end_s is None else box.end_s, start), clip.duration_s)
    still = data_url(jpeg_bytes(clip.at((start + end) / 2)), "image/jpeg") if shown else ""
    x, y = round(box.left * width, 2), round(box.top * height, 2)
    size = round((box.right - box.left) * width, 2), round((box.bottom - box.top) * height, 2)
    return Mark(trial, component, colour, start, end, x, y, *size, box.note, still)


def _policy(style: str, script: str) -> str:
    """What the browser may do: show what is in the file, and run this one script."""
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _jinja() -> ModuleType:
    try:
        return importlib.import_module("jinja2")
    except ImportError as error:
        raise BackendError("reports of the critic need Jinja2: pip install 'worldrt[critic]'") from error
