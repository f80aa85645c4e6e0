"""Lanes as paths: by our own reader, by hand, and by the carla package's map of the same file."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.roads.network import LaneKey, network, reader_of
from worldrt.runtime.roads.reader import parse_map

from ...fakes import roads as made

GOLDEN = Path(__file__).parents[2] / "golden" / "opendwm" / "draw_map.xodr"
FILES = {
    "oval": lambda: made.oval(),
    "crossing": lambda: made.crossing(),
    "curve": lambda: made.curve()[0],
    "golden": lambda: GOLDEN.read_text(),
}


def lanes_of(text, reader="own"):
    return network(parse_map(text.encode()), text.encode(), reader)


@pytest.mark.parametrize("name", FILES)
def test_both_readers_give_the_same_lanes(name):
    """Within the float32 of that map, and the centimetres by which a cubic's parameter is not its length."""
    pytest.importorskip("carla")
    text = FILES[name]()
    own, other = lanes_of(text), lanes_of(text, "carla")
    assert own.keys() == other.keys() and own
    for key, path in own.items():
        there = other[key]
        np.testing.assert_allclose(there.points, path.points, atol=0.01)
        np.testing.assert_allclose(there.widths_m, path.widths_m, atol=2e-3)
        assert set(there.successors) == set(path.successors)
        assert there.junction == path.junction


def test_an_oval_is_driven_in_both_directions():
    lanes = lanes_of(made.oval())
    assert len(lanes) == 8
    for side, radius in ((-1, 21.75), (1, 18.25)):  # the lane on the right lies outside, as one drives to the left
        start = key = LaneKey("1", 0, side)
        length, seen = 0.0, []
        while not seen or key != start:
            seen.append(key.road)
            length += lanes[key].length_m
            (follower,) = lanes[key].successors
            np.testing.assert_allclose(lanes[follower].points[0], lanes[key].points[-1], atol=1e-6)
            np.testing.assert_allclose(
                math.remainder(lanes[follower].headings_rad[0] - lanes[key].headings_rad[-1], math.tau), 0, atol=0.03
            )
            key = follower
        assert seen == (["1", "2", "3", "4"] if side < 0 else ["1", "4", "3", "2"])
        assert length == pytest.approx(120 + math.tau * radius, rel=1e-3)


def test_a_crossing_leads_everywhere_but_back():
    lanes = lanes_of(made.crossing())
    came = LaneKey("1", 0, -1)  # eastwards, into the middle
    ways = lanes[came].successors
    assert len(ways) == 3 and all(lanes[way].junction for way in ways)
    exits = {lanes[way].successors[0] for way in ways}
    assert exits == {LaneKey("2", 0, -1), LaneKey("4", 0, -1), LaneKey("3", 0, 1)}
    turns = sorted(round(math.degrees(lanes[way].headings_rad[-1] - lanes[way].headings_rad[0]), -1) for way in ways)
    assert turns == [-90, 0, 90]
    assert lanes[LaneKey("1", 0, 1)].successors == ()  # the street ends there
    assert lanes[came].speed_mps == pytest.approx(40 / 3.6)


def test_a_place_on_a_path_is_where_it_should_be():
    path = lanes_of(made.crossing())[LaneKey("1", 0, -1)]  # from (12, 52) to (40, 52), its middle 1.75 m to the right
    point, heading, slope = path.at(10.0)
    np.testing.assert_allclose(point, (22.0, 52 - 1.75, 0), atol=1e-6)
    assert (heading, slope) == (pytest.approx(0), 0)
    np.testing.assert_allclose(path.at(10.0, 2.0)[0], (22.0, 52 + 0.25, 0), atol=1e-6)
    np.testing.assert_allclose(path.at(1e9)[0], path.points[-1])


def test_roads_on_the_left_are_driven_on_the_left():
    text = made.crossing().replace('junction="-1">', 'junction="-1" rule="LHT">')
    right, left = lanes_of(made.crossing())[LaneKey("1", 0, -1)], lanes_of(text)[LaneKey("1", 0, -1)]
    np.testing.assert_allclose(left.points, right.points[::-1])


def test_a_lane_goes_on_in_the_next_section():
    lanes = lanes_of(GOLDEN.read_text())
    assert {key for key in lanes if key.road == "1"} == {LaneKey("1", s, n) for s, n in
        ((0, 1), (0, 2), (0, -1), (0, -2), (1, 1), (1, -1))}  # fmt: skip
    text = GOLDEN.read_text().replace(
        '<lane id="-1" type="driving"><width sOffset="0.0" a="3.5" b="0" c="0" d="0"/><width',
        '<lane id="-1" type="driving"><link><successor id="-1"/></link>'
        '<width sOffset="0.0" a="3.5" b="0" c="0" d="0"/><width',
    )
    assert lanes_of(text)[LaneKey("1", 0, -1)].successors == (LaneKey("1", 1, -1),)


def test_without_the_carla_package_our_own_reader_is_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "carla", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert reader_of("auto") == "own"
    assert lanes_of(made.crossing(), "auto").keys() == lanes_of(made.crossing()).keys()
    with pytest.raises(InputError, match=r"pip install 'worldrt\[carla\]'"):
        lanes_of(made.crossing(), "carla")


def test_what_cannot_be_driven_on_is_refused():
    with pytest.raises(InputError, match="no lane to drive on"):
        lanes_of(made.crossing().replace('type="driving"', 'type="biking"'))
    with pytest.raises(InputError, match="map_reader: expected one of auto, own, carla, got 'mine'"):
        lanes_of(made.crossing(), "mine")
