"""Templates to pages: a line `<!-- name: arguments -->` gives its place to what the figures say.

<!-- result: cpu = 20261121T080646Z-amd-epyc-2c-cpu.json -->   names a committed result; nothing is put here
<!-- table: cpu | Time by stage -->                            a table of it, with the command that measured it
<!-- columns: cpu | Time by stage | stage, p50_ms -->          the same with some of its columns
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
DIRECTIVE = re.compile(r"^<!-- (\w+): (.*) -->$")
HEAD = "<!-- Made by `trt-bench docs` from {template} and the results that it names: change those, not this. -->"


def names() -> list[str]:
    """Of the pages."""
    return sorted(path.stem for path in TEMPLATES.glob("*.md"))


def page(name: str, results: Path = RESULTS) -> str:
    """The text of a page. Raises `InputError` for a directive that says nothing."""
    template = TEMPLATES / f"{name}.md"
    known: dict[str, Report] = {}
    directives: dict[str, Callable[[str], str]] = {
        "table": lambda text: _table(known, *_split(text, 2)),
        "columns": lambda text: _table(known, *_split(text, 3)),
        "answers": lambda text: "\n".join(f"* {line}" for line in verdict.sentences(_of(known, text))),
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
                known[key] = read(results / file)
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


def _of(known: dict[str, Report], key: str) -> Report:
    if key not in known:
        raise ValueError(f"no result is named {key}")
    return known[key]


def _table(known: dict[str, Report], key: str, title: str, columns: str = "") -> str:
    result = _of(known, key)
    found = [made for made in result.tables if made.title.startswith(title)]
    if not found:
        raise ValueError(f"its tables are: {', '.join(made.title for made in result.tables)}")
    made = _chosen(found[0], [name.strip() for name in columns.split(",")] if columns else [])
    return f"{_without_title(made)}\n\n{_source(result)}"


def _chosen(made: Table, columns: list[str]) -> Table:
    places = [made.columns.index(name) for name in columns] or range(len(made.columns))
    rows = tuple(tuple(row[place] for place in places) for row in made.rows)
    return Table(made.title, tuple(made.columns[place] for place in places), rows, made.notes)


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
