"""OpenDRIVE files: the official reader's polylines, links, and files that mean no good."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from worldrt.engine.errors import InputError
from worldrt.runtime.roads import reader, xml
from worldrt.runtime.roads.marks import polylines
from worldrt.runtime.roads.reader import parse_map, read_map

from ...fakes import roads as made

GOLDEN = Path(__file__).parents[2] / "golden" / "opendwm"
ROAD = (
    '<road id="1" length="10"><planView><geometry s="0" x="0" y="0" hdg="0" length="10"><line/></geometry></planView>'
    '<lanes><laneSection s="0"><center><lane id="0" type="none"/></center><right><lane id="-1" type="driving">'
    '<width sOffset="0" a="3" b="0" c="0" d="0"/><roadMark sOffset="0" type="solid"/></lane></right>'
    "</laneSection></lanes></road>"
)


def file_of(*parts, before=""):
    return f"{before}<OpenDRIVE>{''.join(parts)}</OpenDRIVE>".encode()


def test_marks_are_those_of_the_official_reader():
    found = polylines(read_map(GOLDEN / "draw_map.xodr"))
    compared = 0
    with safe_open(GOLDEN / "draw.safetensors", "np") as file:
        for kind, lines in found.items():
            expected = [file.get_tensor(key) for key in file.keys() if key.startswith(f"map.{kind}.")]  # noqa: SIM118
            assert sorted(len(line) for line in lines) == sorted(len(line) for line in expected)
            for line in expected:
                assert min(np.abs(line - other).max() for other in lines if other.shape == line.shape) < 1e-12
                compared += 1
    assert compared == 13


def test_two_roads_in_kilometres_an_hour_and_on_the_left():
    road = ROAD.replace(
        'length="10">', 'length="10" rule="LHT"><type s="0" type="town"><speed max="36" unit="km/h"/></type>', 1
    )
    road = parse_map(file_of(road)).roads["1"]
    assert road.speed_mps == pytest.approx(10.0)
    assert road.hand == -1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not XML"),
        (b"<OpenDRIVE>", "not XML"),
        (b"\xff\xfe\x00", "not XML"),
        (b"<html/>", "expected OpenDRIVE, got <html>"),
        (file_of(), "holds no roads"),
        (file_of(ROAD, ROAD), "two roads have the id '1'"),
        (file_of(before='<!DOCTYPE x [<!ENTITY a "b">]>'), "declares a document type or entities"),
        (file_of(before='<!DOCTYPE x SYSTEM "file:///etc/passwd">'), "declares a document type or entities"),
        (b"<a>" * 200, "more than 64 levels"),
        (file_of(ROAD.replace('length="10"', 'length="1e300"', 1)), "of at most 1e\\+07, got '1e300'"),
        (file_of(ROAD.replace('length="10"', 'length="nan"', 1)), "got 'nan'"),
        (file_of(ROAD.replace('length="10"', 'length="-10"', 1)), "ascending stations"),
        (file_of(ROAD.replace('length="10"', 'length="9e6"', 1)), "ends before its length"),
        (file_of(ROAD.replace('length="10"', 'length="9e6"')), "km of lanes"),
        (file_of(ROAD.replace('length="10"', "", 1)), "length of <road>: .* got nothing"),
        (file_of(ROAD.replace("<line/>", "<helix/>")), "got helix"),
        (file_of(ROAD.replace("<line/>", "")), "got none"),
        (file_of(ROAD.replace('id="-1"', 'id="-3"')), "without a gap through 0"),
        (file_of(ROAD.replace('id="-1"', 'id="-1.5"')), "a whole number"),
        (file_of(ROAD.replace('<roadMark sOffset="0"', '<roadMark sOffset="-1e6"')), "ascending stations"),
        (file_of(ROAD.replace("<lanes>", "<other>").replace("</lanes>", "</other>")), "has no lanes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(data, why):
    with pytest.raises(InputError, match=why) as error:
        parse_map(data, "town.xodr")
    assert str(error.value).startswith("town.xodr: ")


def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(xml, "MOST_BYTES", 100)
    (tmp_path / "a.xodr").write_bytes(b" " * 101)
    with pytest.raises(InputError, match="101 bytes"):
        read_map(tmp_path / "a.xodr")
    with pytest.raises(InputError, match="No such file"):
        read_map(tmp_path / "none.xodr")


def test_too_many_elements_are_not_read(monkeypatch):
    monkeypatch.setattr(xml, "MOST_ELEMENTS", 5)
    with pytest.raises(InputError, match="more than 5 elements"):
        parse_map(file_of(ROAD))


def test_a_spiral_that_turns_without_end_takes_no_memory():
    shape = '<spiral curvStart="-1e7" curvEnd="1e7"/>'
    road = ROAD.replace("<line/>", shape).replace('length="10"', 'length="600"')
    lines = polylines(parse_map(file_of(road)))
    assert lines["solid"][0].shape == (601, 3) and np.isfinite(lines["solid"][0]).all()


def test_the_town_that_is_shipped_is_the_one_that_is_made_here():
    path = Path(reader.__file__).parent / "data" / "town.xodr"
    number = re.compile(r'(?<=")-?\d[\d.e-]*(?=")')
    shipped, again = path.read_text(encoding="utf-8"), made.town()
    assert number.sub("", shipped) == number.sub("", again)
    np.testing.assert_allclose(
        [float(text) for text in number.findall(shipped)], [float(text) for text in number.findall(again)], atol=1e-6
    )
