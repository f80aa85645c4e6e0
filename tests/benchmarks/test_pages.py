"""Generated pages say what the results say, and what stands in docs/ is what is generated."""

from dataclasses import replace

import pytest

from worldrt.benchmarks import machine as machines
from worldrt.benchmarks.cli import main
from worldrt.benchmarks.pages import generate
from worldrt.benchmarks.results import Table, report, write
from worldrt.engine.errors import InputError

TABLE = Table("Time by stage", ("stage", "p50_ms", "max_ms"), (("text", 1.5, 2.5),), ("A note.",))


@pytest.fixture
def template(tmp_path, monkeypatch):
    """Makes the page of a template, with one result at hand."""
    house = tmp_path / "house"
    (house / "templates").mkdir(parents=True)
    monkeypatch.setattr(generate, "TEMPLATES", house / "templates")
    monkeypatch.setattr(generate, "HOUSE", house)
    machine = replace(machines.identify(["cpu", "--steps", "3"]), commit="c" * 40, dirty=False)
    samples = {"worldrt/whole_s": [1.0, 1.1, 0.9], "diffusers/whole_s": [2.0, 2.2, 1.8]}
    made = report("cpu", machine, {}, [TABLE], samples, note="placeholder figures")
    file = write(made, tmp_path).name

    def page(*lines):
        text = "\n".join(("# Title", f"<!-- result: cpu = {file} -->", *lines))
        (house / "templates" / "x.md").write_text(text)
        return generate.page("x", tmp_path)

    return page


def test_pages_of_the_documentation_are_those_that_are_generated():
    assert generate.names() == ["cost_model", "performance"]
    for name in generate.names():
        there = (generate.HOUSE / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert there == generate.page(name), f"docs/{name}.md: run trt-bench docs"
    assert main(["docs", "--check"]) == 0


def test_a_table_comes_with_the_command_that_measured_it(template):
    text = template("<!-- table: cpu | Time by -->", "<!-- answers: cpu -->")
    assert "| text  |   1.50 |   2.50 |" in text and "A note." in text and "placeholder" in text.lower()
    assert "`trt-bench cpu --steps 3`" in text and "commit cccccccccccc" in text and "-cpu.json)" in text
    assert "* The whole run: worldrt is 2.00 times as fast as diffusers" in text
    chosen = template("<!-- columns: cpu | Time by stage | max_ms, stage -->")
    assert "| max_ms | stage |" in chosen and "p50_ms" not in chosen
    either = template("<!-- columns: cpu | Speed or Time by stage | median_ms or p50_ms -->")
    assert "| p50_ms |" in either
    assert text.startswith("<!-- Made by `trt-bench docs` from templates/x.md")


@pytest.mark.parametrize(
    "line, words",
    [
        ("<!-- table: gpu | Time -->", "no result is named gpu"),
        ("<!-- table: cpu | Speed -->", "its tables are: Time by stage"),
        ("<!-- table: cpu -->", "expected 2 parts"),
        ("<!-- columns: cpu | Time by stage | p51_ms -->", "no column p51_ms; there are stage"),
        ("<!-- chart: cpu -->", "chart"),
        ("<!-- costs: sense -->", "there are work, fit"),
        ("<!-- costs: levers abacus -->", "there are B200"),
        ("<!-- result: cpu = nowhere.json -->", "nowhere.json: cannot be read"),
    ],
)
def test_a_directive_that_says_nothing_is_named(template, line, words):
    with pytest.raises(InputError, match=words):
        template(line)


def test_what_is_not_measured_yet_says_how_to_measure_it(template, tmp_path):
    lines = ("<!-- result: io = none-io.json -->", "<!-- table: io | Time of a frame -->", "<!-- answers: io -->")
    text = template(*lines)
    assert (
        text.count("Not measured yet: `trt-bench io --output benchmarks/results`, then `trt-bench docs --newest`.") == 2
    )


def test_the_newest_results_take_the_place_of_older_ones_and_of_none(tmp_path):
    for name in ("20260101T000000Z-x-io.json", "20260102T000000Z-x-io.json", "20260103T000000Z-x-stream.json"):
        (tmp_path / name).touch()
    lines = [
        "<!-- result: io = none-io.json -->",
        "<!-- result: a = 20260101T000000Z-x-stream.json -->",
        "<!-- result: b = 20260102T000000Z-x-stream.json -->",
        "<!-- result: cpu = 20260102T000000Z-x-cpu.json -->",
    ]
    found = generate.newest("\n".join(lines), tmp_path).splitlines()
    assert found == ["<!-- result: io = 20260102T000000Z-x-io.json -->", *lines[1:]]
