"""Results as one HTML file that needs nothing beside itself, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from worldrt.benchmarks import render
from worldrt.benchmarks.report import compare, verdict
from worldrt.benchmarks.report.plots import draw
from worldrt.benchmarks.results import Figure, Report, Table

Pair = tuple[Report, Report]
"""An old and a new result of one verb."""
STYLE = """
:root{color-scheme:light;--ink:#1c2328;--soft:#5c6870;--line:#dde3e7;--good:#1d6b38;--bad:#b3261e}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:#fff;margin:0 auto;padding:1rem;max-width:64rem}
h1{font-size:1.5rem;margin:.2rem 0}
h2{font-size:1.2rem;margin:2rem 0 .4rem;border-top:1px solid var(--line);padding-top:1rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p,li{overflow-wrap:anywhere}
.answer{font-size:1.1rem;font-weight:600}
.soft,.notes{color:var(--soft);font-size:.85rem}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.3rem .55rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
th{background:#f4f6f8;font-weight:600}
td:first-child,th:first-child{position:sticky;left:0;background:#fff;max-width:45vw;white-space:normal}
th:first-child{background:#f4f6f8}
.number{text-align:right}
.better{color:var(--good);font-weight:600}.worse{color:var(--bad);font-weight:700}
.warn{background:#fff4e5;border-left:4px solid #d9822b;padding:.4rem .7rem;border-radius:4px}
figure{margin:1rem 0;max-width:36rem}
figure svg{width:100%;height:auto;display:block}
figcaption{font-weight:600;font-size:.9rem}
code{font-size:.85em;background:#f4f6f8;padding:.1em .3em;border-radius:3px;overflow-wrap:anywhere}
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html(results: Sequence[Report], pairs: Sequence[Pair] = ()) -> str:
    """Everything from outside is escaped, and the page may load nothing."""
    title = "worldrt: what was measured"
    body = [f"<h1>{title}</h1>", _summary(results)]
    body += [_comparison(old, new) for old, new in pairs]
    body += [_result(result) for result in results]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def markdown(results: Sequence[Report], pairs: Sequence[Pair] = ()) -> str:
    """The same without figures."""
    parts = ["# worldrt: what was measured", *_answers(results)]
    parts += [render.table(compare.table(old, new)) for old, new in pairs]
    for result in results:
        parts.append(
            render.markdown(result).rstrip().replace("\n## ", "\n### ").replace("# trt-bench", "## trt-bench", 1)
        )
    return "\n\n".join(parts) + "\n"


def _answers(results: Sequence[Report]) -> list[str]:
    return [sentence for result in results for sentence in verdict.sentences(result)]


def _summary(results: Sequence[Report]) -> str:
    answers = "".join(f'<p class="answer">{escape(text)}</p>' for text in _answers(results))
    machines = {(r.machine.cpu, r.machine.cores, r.machine.gpus): r.machine for r in results}
    lines = [
        f"{m.cpu}, {m.cores} cores, {m.ram_bytes / 2**30:.1f} GiB; GPU: {'; '.join(m.gpus) or 'none'}"
        for m in machines.values()
    ]
    places = "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)
    notes: dict[str, list[str]] = {}
    for result in results:
        if result.note:
            notes.setdefault(result.note, []).append(result.verb)
    warnings = "".join(
        f'<p class="warn">{escape(", ".join(verbs))}: {escape(note)}.</p>' for note, verbs in notes.items()
    )
    links = ", ".join(f'<a href="#{_anchor(r)}">{escape(r.verb)}</a>' for r in results)
    return f"{answers}{warnings}{places}<p>Measured: {links}.</p>"


def _result(result: Report) -> str:
    parts = [f'<h2 id="{_anchor(result)}">trt-bench {escape(result.verb)}</h2>']
    if result.note:
        parts.append(f'<p class="warn">{escape(result.note[0].upper() + result.note[1:])}.</p>')
    parts += [_table(made) for made in result.tables]
    parts += [_figure(figure) for figure in result.figures]
    lines = "".join(f"<li>{_code(line)}</li>" for line in render.identity(result))
    settings = ", ".join(f"{name} {render.cell(value)}" for name, value in result.settings.items())
    parts.append(f'<h3>Measured on</h3><ul class="soft">{lines}<li>settings: {escape(settings)}</li></ul>')
    return "\n".join(parts)


def _comparison(old: Report, new: Report) -> str:
    made = compare.table(old, new)
    worse = sum(row[-1] == "WORSE" for row in made.rows)
    word = f"{worse} of {len(made.rows)} quantities became worse" if worse else "nothing became worse"
    kind = "worse" if worse else "better"
    return (
        f'<h2>Old against new: {escape(new.verb)}</h2><p class="{kind}">{word[0].upper()}{word[1:]}.</p>{_table(made)}'
    )


def _table(made: Table) -> str:
    numeric = [any(render.is_number(row[i]) for row in made.rows) for i in range(len(made.columns))]

    def line(tag: str, cells: Sequence[Any]) -> str:
        made_cells = "".join(
            f"<{tag}{_class(value, right)}>{escape(str(value) if tag == 'th' else _plain(value))}</{tag}>"
            for value, right in zip(cells, numeric, strict=True)
        )
        return f"<tr>{made_cells}</tr>"

    rows = "".join(line("td", row) for row in made.rows)
    notes = "".join(f'<p class="notes">{escape(note)}</p>' for note in made.notes)
    head = line("th", made.columns)
    return f'<h3>{escape(made.title)}</h3><div class="scroll"><table>{head}{rows}</table></div>{notes}'


def _class(value: Any, right: bool) -> str:
    names = ["number"] * right + [str(value).lower()] * (value in ("better", "WORSE"))
    return f' class="{" ".join(names)}"' if names else ""


def _plain(value: Any) -> str:
    """A cell without the escapes of Markdown."""
    return str(value) if isinstance(value, str) else render.cell(value)


def _figure(figure: Figure) -> str:
    return f"<figure><figcaption>{escape(figure.title)}</figcaption>{draw(figure)}</figure>"


def _code(line: str) -> str:
    before, tick, rest = line.partition("`")
    inside, end, after = rest.rpartition("`")
    return f"{escape(before)}<code>{escape(inside)}</code>{escape(after)}" if tick and end else escape(line)


def _anchor(result: Report) -> str:
    return "".join(c if c.isalnum() else "-" for c in f"{result.verb}-{result.machine.date}")
