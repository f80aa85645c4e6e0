"""`trt-bench report`: results as one page."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldrt.benchmarks.results import Report, read
from worldrt.engine import cli
from worldrt.engine.errors import InputError
from worldrt.engine.files import staged_file

if TYPE_CHECKING:
    from worldrt.benchmarks.report.compare import Change


def add(verbs: Any) -> None:
    """The verb and its flags."""
    text = "one page of HTML and one of Markdown from result files; two of one verb are compared"
    parser: cli.Parser = verbs.add_parser("report", help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=run)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT",
                        help="files, or folders: of these the newest of each verb")  # fmt: skip
    parser.add_argument(
        "--against", nargs="+", type=Path, default=[], metavar="OLD", help="earlier ones to compare with"
    )
    parser.add_argument("--output", type=Path, default=Path("report.html"), metavar="FILE",
                        help="the Markdown lies beside it (default %(default)s)")  # fmt: skip


def run(args: Namespace) -> int:
    """Write the pages. The exit code is 1 where something became worse."""
    worse = write(args.results, args.against, args.output)
    print(args.output)
    for change in worse:
        print(f"worse: {change.name}: {change.before:.4g} -> {change.after:.4g}")
    return 1 if worse else 0


def write(results: Sequence[Path], against: Sequence[Path], output: Path) -> list[Change]:
    """Write both pages; returns what became worse. Raises `InputError`."""
    from worldrt.benchmarks.report import compare, page

    if output.suffix != ".html":
        raise InputError(f"--output {output}: expected a name that ends in .html")
    given, old = _read(results), {result.verb: result for result in _read(against)}
    if len(given) == 2 and not old and given[0].verb == given[1].verb:
        old, given = {given[0].verb: given[0]}, given[1:]
    pairs = [(old[result.verb], result) for result in given if result.verb in old]
    texts = {output: page.html(given, pairs), output.with_suffix(".md"): page.markdown(given, pairs)}
    for path, text in texts.items():
        with staged_file(path, overwrite=True) as part:
            part.write_text(text, encoding="utf-8")
    return [change for pair in pairs for change in compare.changes(*pair) if change.verdict == "WORSE"]


def _read(places: Sequence[Path]) -> list[Report]:
    from worldrt.benchmarks.report import verdict

    found: list[Report] = []
    for place in places:
        if place.is_dir():
            newest = {result.verb: result for result in map(read, sorted(place.glob("2*.json")))}
            found += newest.values()
        else:
            found.append(read(place))
    if places and not found:
        raise InputError(f"{places[0]}: no results there")
    return sorted(found, key=lambda result: not verdict.sentences(result))  # what answers comes first
