"""The page of results: it says who is faster, marks what became worse, loads nothing, and fits a phone."""

import importlib
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

from worldrt.benchmarks import figures
from worldrt.benchmarks import machine as machines
from worldrt.benchmarks.cli import main
from worldrt.benchmarks.report import compare, page, plots, verdict
from worldrt.benchmarks.results import Extra, Figure, Table, read, report, write
from worldrt.benchmarks.statistics import ratio_interval
from worldrt.engine.schema import encode

HOUSE = Path(__file__).parents[2]
HOSTILE = "<script>alert('x')</script>&\"'$x_1$ \x07|"
KINDS = {
    "waterfall": {"ours": (("text", 1.0), ("decode", 2.0)), "theirs": (("text", 2.0), ("decode", 5.0))},
    "histogram": {"ours": tuple(("", 1 + 0.1 * i) for i in range(9)), "theirs": (("", 2.0),)},
    "roofline": {"roof": ((10.0, 100.0),), "step": ((4.0, 30.0),), "text": ((50.0, 80.0),)},
    "scaling": {"video": ((1, 1.0), (2, 1.9), (4, 3.6))},
    "memory": {"ours": (("weights", 10.0), ("caches", 3.0)), "theirs": (("weights", 30.0),)},
}


@pytest.fixture(scope="module")
def machine():
    return replace(machines.identify(["cpu", "--rounds", "5"]), date="2026-01-02T03:04:05+00:00", load=0.0)


@pytest.fixture
def made(machine):
    """A result with one of everything, in which worldrt is three times as fast but for one stage."""
    rng = np.random.default_rng(1)
    base = 1 + 0.01 * rng.standard_normal(12)
    samples = {
        **{f"worldrt/{stage}_s": list(base * s) for stage, s in (("text", 0.2), ("decode", 0.9), ("whole", 1.0))},
        **{f"diffusers/{stage}_s": list(base * s) for stage, s in (("text", 0.2), ("decode", 2.0), ("whole", 3.0))},
    }
    samples["diffusers/text_s"] = list(0.2 * (1 + 0.01 * rng.standard_normal(12)))
    table = Table(HOSTILE, ("stage", HOSTILE, "p50_ms"), ((HOSTILE, 1, 2.5), ("b", None, 1e9)), (HOSTILE,))
    drawn = tuple(Figure(kind, f"{kind} {HOSTILE}", "x", "y", series) for kind, series in KINDS.items())
    return report("cpu", machine, {"steps": HOSTILE}, [table], samples, Extra(drawn, {"bundle": "ab" * 32}), HOSTILE)


@pytest.fixture
def plain(made):
    """The same without figures, which take their time."""
    return replace(made, figures=())


class Strict(HTMLParser):
    """What tags there are, and whether all of them are closed."""

    VOID = ("meta", "br", "hr", "img", "link")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = set(), set(), []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_itself_and_runs_nothing(made):
    text = page.html([made])
    found = Strict(text)
    assert found.tags.isdisjoint({"script", "link", "iframe", "img", "object"})
    assert not {name for name in found.attributes if name.startswith("on") or name == "src"}
    assert "<script" not in text and "alert(&#x27;x&#x27;)" in text
    assert "default-src 'none'" in text and text.count("<svg") == len(KINDS)
    assert "ab" * 8 in text and made.machine.command in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_figure_is_drawn_the_same_way_twice(kind):
    figure = Figure(kind, "title", "x axis", "y axis", KINDS[kind])
    svg = plots.draw(figure)
    assert svg == plots.draw(figure)
    ElementTree.fromstring(svg)
    assert "x axis" in svg and "y axis" in svg and "width=" not in svg[: svg.index(">")]


def test_labels_from_outside_are_only_text_in_figures():
    pairs = ((HOSTILE, 1.0), ("b", 2.0))
    svg = plots.draw(Figure("waterfall", "t", HOSTILE, "", {HOSTILE: pairs}))
    root = ElementTree.fromstring(svg)
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    assert any("<script>" in (e.text or "") for e in root.iter())


def test_the_first_words_say_who_is_faster_and_where_not(plain):
    whole, stages = verdict.sentences(plain)
    assert whole.startswith("The whole run: worldrt is 3.00 times as fast as diffusers (95 % interval 3.00")
    assert stages.startswith("Not shown to be faster than diffusers at: text (not told apart")
    assert "decode" not in stages
    assert page.html([plain]).index("times as fast as diffusers") < page.html([plain]).index("<table")
    flipped = replace(plain, samples={k: plain.samples[_other(k)] for k in plain.samples})
    with_int8 = {k.replace("worldrt", "int8"): v for k, v in plain.samples.items() if "worldrt" in k}
    said = verdict.sentences(replace(plain, samples=dict(plain.samples) | with_int8))
    assert len(said) == 3 and said[1].startswith("The same with 8-bit weights: 3.00 times as fast as diffusers")
    frames = Table("Frames against worldrt", ("contender", "median_dB"), (("int8", 47.94), ("another video", 12.0)))
    lacking = Table("Not measured", ("contender", "why"), (("compiled", "compiled: took more than 9 s"),))
    more = replace(plain, samples=dict(plain.samples) | with_int8, tables=(*plain.tables, frames, lacking))
    said = verdict.sentences(more)
    assert "; its frames are 47.9 dB (PSNR) from those in float32, those of another video 12.0 dB." in said[1]
    assert said[-1] == "Not measured: compiled: took more than 9 s."
    assert "SLOWER than diffusers, 0.33 times as fast" in verdict.sentences(flipped)[0]
    assert verdict.sentences(replace(plain, samples={"update/x_s": (1.0,)})) == []


def _other(name):
    ours, theirs = "worldrt/", "diffusers/"
    return name.replace(ours, theirs) if name.startswith(ours) else name.replace(theirs, ours)


def test_the_interval_of_a_ratio_holds_the_true_one_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        a, b = rng.lognormal(np.log(1.5), 0.1, 25), rng.lognormal(0, 0.1, 25)
        interval = ratio_interval(list(a), list(b))
        hits += interval.low <= 1.5 <= interval.high
        assert interval.low <= interval.value <= interval.high
    assert 85 <= hits <= 100
    assert ratio_interval([2.0, 4.0], [1.0, 2.0], paired=True).low == 2
    for wrong in (([], [1.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(ValueError, match="both sides"):
            ratio_interval(*wrong, paired=True)


def test_what_became_worse_is_marked_and_noise_is_not(machine):
    rng = np.random.default_rng(2)
    times = 1 + 0.02 * rng.standard_normal(20)
    again = 1 + 0.02 * rng.standard_normal(20)
    old = report("cpu", machine, {}, [], {"a_s": times, "b_s": times, "c_fps": times, "d_bytes": [1.0], "gone_s": [1]})
    new = report("cpu", machine, {}, [], {"a_s": 1.1 * again, "b_s": again, "c_fps": 1.1 * again, "d_bytes": [2.0]})
    verdicts = {change.name: change.verdict for change in compare.changes(old, new)}
    assert verdicts == {"a_s": "WORSE", "b_s": "no difference shown", "c_fps": "better", "d_bytes": "too few samples"}
    assert compare.table(old, new).rows[0][0] == "a_s"
    assert "different machines" not in str(compare.table(old, new).notes)
    assert "different machines" in str(compare.table(old, replace(new, machine=replace(machine, cpu="other"))).notes)
    text = page.html([new], [(old, new)])
    assert "1 of 4 quantities became worse" in text.lower() and 'class="worse">WORSE' in text


def test_two_files_of_one_verb_are_compared_and_the_exit_code_says_so(plain, machine, tmp_path, capsys):
    old = write(plain, tmp_path / "old")
    slow = {name: tuple(2 * value for value in values) for name, values in plain.samples.items()}
    later = replace(machine, date="2026-01-03T03:04:05+00:00")
    new = write(replace(plain, samples=slow, machine=later), tmp_path / "new")
    output = tmp_path / "out" / "report.html"
    output.parent.mkdir()
    assert main(["report", str(old), str(new), "--output", str(output)]) == 1
    assert "worse: worldrt/whole_s" in capsys.readouterr().out
    assert "Old against new" in output.read_text() and "Old against new" in output.with_suffix(".md").read_text()
    assert main(["report", str(tmp_path / "new"), "--against", str(tmp_path / "old"), "--output", str(output)]) == 1
    assert main(["report", str(old), "--output", str(output)]) == 0
    assert "Old against new" not in output.read_text()
    assert main(["report", str(old), "--output", str(tmp_path / "a.pdf")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2 and "no results there" in capsys.readouterr().err


def test_result_files_fit_the_published_schema(made, tmp_path):
    schema = json.loads((HOUSE / "benchmarks/results/schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    data = json.loads(write(made, tmp_path).read_text())
    validator.validate(data)
    assert read(next(tmp_path.glob("*.json"))) == made
    for broken in ({"verb": 1}, {"machine": {}}, {"samples": {"a": ["b"]}}, {"figures": [{"kind": "pie"}]}, {"new": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(data | broken)
    names = sorted((HOUSE / "benchmarks/results").glob("2*.json"))
    assert names
    for name in names:
        validator.validate(json.loads(name.read_text()))
        assert encode(read(name))


def test_samples_become_figures():
    samples = {"ours": {"text": [1.0, 3.0, 2.0], "step": [0.1], "whole": [4.0]}}
    assert figures.waterfall(samples, {"step": 10}).series == {"ours": (("text", 2.0), ("step", 1.0))}
    assert figures.histogram(samples, "text").series == {"ours": (("", 1e3), ("", 3e3), ("", 2e3))}
    assert figures.memory({"ours": 2**20}).series == {"ours": (("process", 1.0),)}


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_a_phone_shows_the_page_without_scrolling_sideways(made, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page.html([made], [(made, made)]), encoding="utf-8")
    playwright = importlib.import_module("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 360, "height": 740})
        said = []
        view.on("console", lambda message: said.append(message.text))
        view.on("dialog", lambda dialog: said.append(dialog.message))
        view.goto(path.as_uri())
        assert view.evaluate("document.documentElement.scrollWidth") <= 360
        sizes = view.evaluate("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().width)")
        assert len(sizes) == len(KINDS) and all(250 < width <= 360 for width in sizes)
        browser.close()
    assert said == []
