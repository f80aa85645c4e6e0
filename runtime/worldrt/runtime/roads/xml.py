"""XML of strangers: no entities, no document types, bounded in size, number and depth."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.parsers import expat

from worldrt.engine.errors import InputError

MOST_BYTES = 64 * 2**20
MOST_ELEMENTS = 2_000_000
DEEPEST = 64
Element = ElementTree.Element


def parse(data: bytes, name: str) -> Element:
    """The root element; texts between elements are left out. `name` is that of the file, for errors. Raises
    `InputError` for what is not XML, or goes beyond the bounds."""
    if len(data) > MOST_BYTES:
        raise InputError(f"{name}: {len(data)} bytes; {MOST_BYTES} is the most that is read of roads")
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    elements = depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal elements, depth
        elements, depth = elements + 1, depth + 1
        if elements > MOST_ELEMENTS or depth > DEEPEST:
            bound = f"{MOST_ELEMENTS} elements" if elements > MOST_ELEMENTS else f"{DEEPEST} levels of elements"
            raise InputError(f"{name}: more than {bound}, the most that is read of roads")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise InputError(f"{name}: it declares a document type or entities, which roads have no need of; remove them")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError) as error:
        raise InputError(f"{name}: not XML: {error}") from error
    return builder.close()
