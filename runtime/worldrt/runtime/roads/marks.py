"""Road marks as polylines, sampled as OpenDWM's reader samples them."""

from __future__ import annotations

import numpy as np

from worldrt.runtime.roads.curves import Float64
from worldrt.runtime.roads.road import Road, RoadMap, Section
from worldrt.runtime.scene.lines import KINDS

STEP_M = 1.0


def polylines(roads: RoadMap) -> dict[str, list[Float64]]:
    """Points (n, 3) of all marks and crosswalks, by kind in the order of `KINDS`.

    A mark is sampled each metre from where it begins up to where the next of its lane does; the point at the very end
    is taken in the last section of a road only, so that lines have gaps of up to a metre between sections.
    """
    found: dict[str, list[Float64]] = {kind: [] for kind in KINDS}
    for road in roads.roads.values():
        for section in road.sections:
            for lane_id, lane in section.lanes.items():
                ends = [mark.offset_m for mark in lane.marks[1:]] + [section.end_m - section.begin_m]
                for mark, end_m in zip(lane.marks, ends, strict=False):
                    if mark.kind in found:
                        found[mark.kind].append(_sampled(road, section, lane_id, mark.offset_m, end_m))
    found["crosswalk"] += [walk.corners for walk in roads.crosswalks]
    return found


def _sampled(road: Road, section: Section, lane_id: int, begin_m: float, end_m: float) -> Float64:
    """The outer border of a lane between two distances within its section."""
    count = max(0, int(np.ceil((min(end_m, section.end_m - section.begin_m) - begin_m) / STEP_M)))
    offsets = np.asarray(begin_m + STEP_M * np.arange(count), np.float64)
    if section is road.sections[-1]:
        offsets = np.append(offsets, end_m)
    s_m = np.asarray(section.begin_m + offsets, np.float64)
    points, _ = road.at(s_m, road.border(section, lane_id, s_m))
    return points
