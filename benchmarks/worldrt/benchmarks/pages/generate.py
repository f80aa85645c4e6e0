"""Templates to pages: a line `<!-- name: arguments -->` gives its place to what the figures say.

<!-- result: cpu = 20261121T080646Z-amd-epyc-2c-cpu.json -->   names a committed result; nothing is put here
<!-- result: io = none-io.json -->                             there is no such result yet, which its tables say
<!-- table: cpu | Time by stage -->                            a table of it, with the command that measured it
<!-- columns: cpu | Time by stage | stage, p50_ms -->          the same with some of its columns

A title or a column may be `one or another`, where results of different age name it differently.

<!-- answers: cpu -->                                          who is faster, and where not
<!-- costs: levers H200 -->                                    a table of the cost model
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from worldrt.benchmarks import render
from worldrt.benchmarks.pages import costs
from worldrt.benchmarks.report import verdict
from worldrt.benchmarks.results import Report, Table, read
from worldrt.engine.errors import InputError

TEMPLATES = Path(__file__).parent / "templates"
HOUSE = Path(__file__).parents[4]
RESULTS = HOUSE / "benchmarks" / "results"
NONE = "none-"
DIRECTIVE = re.compile(r"^<!-- (\w+): (.*) -->$")
HEAD = "<!-- Made by `trt-bench docs` from {template} and the results that it names: change those, not this. -->"


def names() -> list[str]:
    """Of the pages."""
    return sorted(path.stem for path in TEMPLATES.glob("*.md"))


def page(name: str, results: Path = RESULTS) -> str:
    """The text of a page. Raises `InputError` for a directive that says nothing."""
    template = TEMPLATES / f"{name}.md"
    known: dict[str, Report | str] = {}
    directives: dict[str, Callable[[str], str]] = {
        "table": lambda text: _table(known, *_split(text, 2)),
        "columns": lambda text: _table(known, *_split(text, 3)),
        "answers": lambda text: _answers(known, text),
        "costs": costs.section,
    }
    lines = [HEAD.format(template=template.relative_to(HOUSE)), ""]
    for number, line in enumerate(template.read_text(encoding="utf-8").splitlines(), 1):
        found = DIRECTIVE.match(line)
        if found is None:
            lines.append(line)
            continue
        try:
            if found[1] == "result":
                key, file = _split(found[2], 2, "=")
                known[key] = file.removeprefix(NONE).removesuffix(".json") if _is_none(file) else read(results / file)
            else:
                lines.append(directives[found[1]](found[2]))
        except (KeyError, ValueError) as error:
            raise InputError(f"{template}:{number}: {line}: {error}") from error
    return "\n".join(lines).rstrip() + "\n"


def _split(text: str, count: int, by: str = "|") -> list[str]:
    parts = [part.strip() for part in text.split(by)]
    if len(parts) != count:
        raise ValueError(f"expected {count} parts")
    return parts


def newest(template: str, results: Path = RESULTS) -> str:
    """A template whose results are the newest of their verbs; those of a verb that several are of stay."""
    places = [match for line in template.splitlines() if (match := DIRECTIVE.match(line)) and match[1] == "result"]
    verbs = [_verb(_split(match[2], 2, "=")[1]) for match in places]
    for match, verb in zip(places, verbs, strict=True):
        there = sorted(path.name for path in results.glob("2*.json") if _verb(path.name) == verb)
        if there and verbs.count(verb) == 1:
            key = _split(match[2], 2, "=")[0]
            template = template.replace(match[0], f"<!-- result: {key} = {there[-1]} -->")
    return template


def _verb(file: str) -> str:
    """`DATE-amd-epyc-2c-cpu.json` is of `cpu`."""
    return Path(file).stem.rpartition("-")[2]


def _is_none(file: str) -> bool:
    return file.startswith(NONE)


def _of(known: dict[str, Report | str], key: str) -> Report | str:
    """A result, or the verb that would measure it."""
    if key not in known:
        raise ValueError(f"no result is named {key}")
    return known[key]


def _absent(verb: str) -> str:
    return f"Not measured yet: `trt-bench {verb} --output benchmarks/results`, then `trt-bench docs --newest`."


def _answers(known: dict[str, Report | str], key: str) -> str:
    result = _of(known, key)
    if isinstance(result, str):
        return _absent(result)
    return "\n".join(f"* {line}" for line in verdict.sentences(result))


def _table(known: dict[str, Report | str], key: str, title: str, columns: str = "") -> str:
    result = _of(known, key)
    if isinstance(result, str):
        return _absent(result)
    found = [made for made in result.tables for name in title.split(" or ") if made.title.startswith(name)]
    if not found:
        raise ValueError(f"its tables are: {', '.join(made.title for made in result.tables)}")
    made = _chosen(found[0], [name.strip() for name in columns.split(",")] if columns else [])
    return f"{_without_title(made)}\n\n{_source(result)}"


def _chosen(made: Table, columns: list[str]) -> Table:
    places = [_place(made, name) for name in columns] or range(len(made.columns))
    rows = tuple(tuple(row[place] for place in places) for row in made.rows)
    return Table(made.title, tuple(made.columns[place] for place in places), rows, made.notes)


def _place(made: Table, column: str) -> int:
    there = [name for name in column.split(" or ") if name in made.columns]
    if not there:
        raise ValueError(f"no column {column}; there are {', '.join(made.columns)}")
    return made.columns.index(there[0])


def _without_title(made: Table) -> str:
    return render.table(made).partition("\n\n")[2]


def _source(result: Report) -> str:
    machine = result.machine
    commit = f"{(machine.commit or 'unknown')[:12]}{' with uncommitted changes' if machine.dirty else ''}"
    where = machine.gpus[0].split(",")[0] if machine.gpus else machine.cpu
    note = f" **{result.note[0].upper()}{result.note[1:]}.**" if result.note else ""
    return (
        f"`{machine.command}`: {where}, {machine.cores} cores, load {machine.load:.1f}, {machine.date[:10]}, commit "
        f"{commit} ([{result.file_name}](../benchmarks/results/{result.file_name})).{note}"
    )
