"""Vehicles keep their distance, wait for each other, and do not run into the car that is driven."""

from __future__ import annotations

import math

import numpy as np
import pytest

from worldrt.runtime.conditions.drive import TOWN
from worldrt.runtime.roads.network import LaneKey, network
from worldrt.runtime.roads.reader import parse_map
from worldrt.runtime.traffic.ego import WHEELBASE_M, Ego, move
from worldrt.runtime.traffic.followers import Follower, idm
from worldrt.runtime.traffic.kinds import EGO, VEHICLES
from worldrt.runtime.traffic.streets import Streets
from worldrt.runtime.traffic.traffic import Traffic, circles

from ...fakes import roads as made

CAR = VEHICLES[0]


@pytest.fixture(scope="module")
def streets():
    def of(text):
        return Streets(network(parse_map(text.encode()), text.encode(), "own"))

    return {"oval": of(made.oval()), "crossing": of(made.crossing())}


def empty(streets, **options):
    traffic = Traffic(streets, vehicles=0, walkers=0, seed=0, **options)
    traffic.now.ego = Ego(1e4, 1e4, 0.0)  # far away from everybody
    return traffic


def run(traffic, seconds, control="N"):
    for _ in range(round(seconds / 0.1)):
        traffic.tick(control, 0.1)


def test_a_steered_car_drives_a_circle():
    """Of radius wheelbase / tan(steer), around a point on the line of the rear axle."""
    ego = Ego(0.0, 0.0, 0.0, speed_mps=5.0, steer_rad=0.2)
    radius = WHEELBASE_M / math.tan(0.2)
    for _ in range(60):
        move(ego, 0.0, 0.2, 0.05)
        assert math.hypot(ego.x_m, ego.y_m - radius) == pytest.approx(radius, rel=1e-9)
    assert ego.heading_rad == pytest.approx(5.0 * 3.0 / radius)


def test_a_car_that_brakes_stops_and_backs_up_only_when_asked_again():
    ego = Ego(0.0, 0.0, 0.0, speed_mps=0.2)
    move(ego, -6.0, 0.0, 0.05)
    assert ego.speed_mps == 0.0
    move(ego, -2.0, 0.0, 0.05)
    assert ego.speed_mps == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("control", "ahead", "side"), [("D", 1, 0), ("DL", 1, 1), ("DR", 1, -1), ("B", -1, 0), ("BL", -1, -1)]
)
def test_controls_steer_the_car(streets, control, ahead, side):
    """Backwards with the wheel to the left the car turns to the right, as cars do."""
    traffic = empty(streets["oval"])
    run(traffic, 3.0, control)
    ego = traffic.now.ego
    assert np.sign(ego.speed_mps) == ahead
    assert np.sign(round(ego.heading_rad, 6)) == side
    run(traffic, 10.0, "N")
    assert traffic.now.ego.speed_mps == 0.0


def test_the_free_road_is_driven_at_its_speed_and_a_standing_car_is_stopped_behind():
    assert idm(10.0, 10.0, np.inf, 0.0) == pytest.approx(0.0)
    assert idm(0.0, 10.0, np.inf, 0.0) == pytest.approx(1.8)
    assert idm(0.0, 10.0, 2.5, 0.0) == pytest.approx(0.0)  # at the distance that one keeps standing
    assert idm(10.0, 10.0, 15.0, 10.0) < -5.0


def test_a_vehicle_goes_round_and_round_and_slows_down_in_bends(streets):
    traffic = empty(streets["oval"])
    follower = Follower(CAR, [LaneKey("1", 0, -1)], 30.0)
    traffic.now.vehicles.append(follower)
    speeds = {"1": [], "2": []}
    for _ in range(900):
        traffic.tick("N", 0.1)
        if follower.lane.road in speeds and 5 < follower.along_m < 50:
            speeds[follower.lane.road].append(follower.speed_mps)
    assert max(speeds["1"]) > 9.0
    # sqrt(2 m/s2 * 21.75 m) in the bend, and near it by the end of a lap
    assert max(speeds["2"][20:]) < 6.6 * 1.1 and min(speeds["2"][20:]) > 5.0


def test_one_vehicle_follows_another_that_stands(streets):
    traffic = empty(streets["oval"])
    lane = LaneKey("1", 0, -1)
    behind, ahead = Follower(CAR, [lane], 5.0, 8.0), Follower(CAR, [lane], 50.0)
    traffic.now.vehicles += [behind, ahead]
    for _ in range(200):
        ahead.speed_mps, ahead.along_m = 0.0, 50.0
        traffic.tick("N", 0.1)
        ahead.along_m, ahead.route = 50.0, [lane]
    assert behind.speed_mps < 0.05
    assert 50.0 - behind.along_m - CAR.length_m == pytest.approx(2.5, abs=0.6)


def test_the_driven_car_is_seen_by_those_behind_it(streets):
    traffic = empty(streets["oval"])
    traffic.now.ego = Ego(40.0, -1.75, 0.0)
    behind = Follower(CAR, [LaneKey("1", 0, -1)], 5.0, 8.0)
    traffic.now.vehicles.append(behind)
    run(traffic, 15.0, "N")
    assert behind.speed_mps < 0.05
    assert behind.along_m + CAR.length_m / 2 < 41.5 - EGO.length_m / 2


def test_the_driven_car_does_not_run_into_anybody(streets):
    traffic = empty(streets["oval"])
    lane = LaneKey("1", 0, -1)
    traffic.now.ego = Ego(5.0, -1.75, 0.0)
    stander = Follower(CAR, [lane], 40.0)
    traffic.now.vehicles.append(stander)
    for _ in range(100):
        stander.speed_mps, stander.along_m, stander.route = 0.0, 40.0, [lane]
        traffic.tick("D", 0.1)
    front = traffic.now.ego.x_m + 1.5 + EGO.length_m / 2
    assert 40.0 - CAR.length_m / 2 - 0.7 < front < 40.0 - CAR.length_m / 2 + 0.3
    assert traffic.now.ego.speed_mps < 0.5
    run(traffic, 2.0, "B")  # and can go back
    assert traffic.now.ego.x_m < front - 3.0


def test_ways_that_cross_are_not_used_at_once(streets):
    """One comes from the west, one from the south, at the same time; turns to the right hinder nobody on the left."""
    crossing = streets["crossing"]
    ahead = {key: path for key, path in crossing.paths.items() if path.junction}
    west = next(
        k
        for k in ahead
        if crossing.origins[k] == {LaneKey("1", 0, -1)} and abs(crossing.paths[k].headings_rad[-1]) < 0.1
    )
    south = next(
        k for k in ahead
        if crossing.origins[k] == {LaneKey("3", 0, -1)} and abs(crossing.paths[k].headings_rad[-1] - math.pi / 2) < 0.1
    )  # fmt: skip
    assert south in crossing.crossing[west]
    traffic = empty(crossing)
    one = Follower(CAR, [LaneKey("1", 0, -1), west, LaneKey("2", 0, -1)], 5.0, 8.0)
    other = Follower(CAR, [LaneKey("3", 0, -1), south, LaneKey("4", 0, -1)], 5.0, 8.0)
    traffic.now.vehicles += [one, other]
    reached = set()
    for _ in range(250):
        traffic.tick("N", 0.1)
        assert not (one.lane == west and other.lane == south)
        reached |= {one.lane, other.lane}
    assert {west, south, LaneKey("2", 0, -1), LaneKey("4", 0, -1)} <= reached


def test_where_a_street_ends_a_vehicle_starts_anew_elsewhere(streets):
    traffic = empty(streets["crossing"])
    follower = Follower(CAR, [LaneKey("2", 0, -1)], 10.0, 5.0)
    traffic.now.vehicles.append(follower)
    run(traffic, 25.0)
    assert follower.lane != LaneKey("2", 0, -1) or follower.along_m < 25.0


def test_the_car_keeps_its_lane_by_itself_and_its_seed_decides_all(streets):
    def driven(seed):
        traffic = Traffic(streets["oval"], vehicles=3, walkers=2, seed=seed)
        away = []
        for _ in range(150):
            traffic.tick(None, 0.1)
            ego = traffic.now.ego
            away.append(abs(streets["oval"].nearest(ego.x_m, ego.y_m, ego.heading_rad).left_m))
        return traffic, away

    traffic, away = driven(5)
    assert max(away) < 0.5
    again, _ = driven(5)
    assert [box.pose.tolist() for box in traffic.boxes()] == [box.pose.tolist() for box in again.boxes()]
    assert len(traffic.boxes()) == 5
    before = traffic.state()
    run(traffic, 3.0, "DL")
    gone = traffic.now.ego
    traffic.restore(before)
    run(traffic, 3.0, "DL")
    assert traffic.now.ego == gone
    other, _ = driven(6)
    assert other.now.ego != again.now.ego


def test_nobody_overlaps_in_a_busy_town():
    data = TOWN.read_bytes()
    traffic = Traffic(Streets(network(parse_map(data), data, "own")), vehicles=30, walkers=0, seed=3)
    for second in range(12):
        run(traffic, 1.0, None)
        assert traffic._hits(traffic.now.ego) <= 0.0
        vehicles = [
            (circles(*place[:2], heading, v.kind.length_m, v.kind.width_m), v.kind.width_m)
            for v in traffic.now.vehicles
            for place, heading, _ in [traffic.streets.paths[v.lane].at(v.along_m)]
        ]
        for i, (one, width) in enumerate(vehicles):
            for other, other_width in vehicles[:i]:
                near = np.linalg.norm(one[:, None] - other[None], axis=2).min()
                assert near > (width + other_width) / 2 - 0.1, f"after {second} s"
    assert np.mean([v.speed_mps for v in traffic.now.vehicles]) > 2.0
