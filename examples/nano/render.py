"""The world in pictures: sky, ground, road, what stands beside it, the car ahead, and the weather."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from motion import State, drive
from paint import SUPERSAMPLE, Array, Canvas, Colour
from scene import COLOURS, Scene

WIDTH, HEIGHT = 128, 80
ROAD_M, LINE_M, DASH_M = 3.8, 0.16, 8.0
SIGHT_M = 80.0
_SKY = {"day": ((0.30, 0.55, 0.92), (0.75, 0.87, 0.98)), "dusk": ((0.28, 0.22, 0.46), (0.98, 0.55, 0.25)),
        "night": ((0.01, 0.02, 0.07), (0.06, 0.08, 0.18))}  # fmt: skip
_LIGHT = {"day": (1.0, 1.0, 1.0), "dusk": (0.85, 0.62, 0.50), "night": (0.22, 0.24, 0.34)}
_GROUND = {"forest": (0.20, 0.42, 0.15), "city": (0.52, 0.51, 0.50), "desert": (0.83, 0.68, 0.42),
           "coast": (0.78, 0.72, 0.50), "mountains": (0.36, 0.58, 0.22)}  # fmt: skip
_SPACING_M = {"forest": 5.0, "city": 11.0, "desert": 13.0, "coast": 12.0, "mountains": 16.0}


def render(scene: Scene, frames: int) -> Array:
    """uint8 (frames, 80, 128, 3)."""
    return np.stack([draw(scene, state) for state in drive(scene.actions, frames)])


def draw(scene: Scene, state: State) -> Array:
    """uint8 (80, 128, 3) of one moment."""
    fog_m = {"fog": 16.0, "rain": 70.0, "snow": 60.0}.get(scene.weather, 260.0)
    canvas = Canvas(WIDTH, HEIGHT, state.curvature_per_m, fog_m, _horizon(scene))
    _sky(canvas, scene, state)
    _ground(canvas, scene, state)
    for depth_m, side, number in reversed(list(_beside(scene, state))):
        _thing(canvas, scene, depth_m, side, number)
    _oncoming(canvas, scene, state)
    _car(canvas, scene, 1.1, _gap_m(state), COLOURS[scene.colour], rear=True)
    _weather(canvas, scene, state)
    return canvas.finished()


def _horizon(scene: Scene) -> Colour:
    low = np.array(_SKY[scene.time][1])
    if scene.weather != "clear":
        low = 0.35 * low + 0.65 * np.array([0.72, 0.74, 0.77]) * np.array(_LIGHT[scene.time])
    return (float(low[0]), float(low[1]), float(low[2]))


def _sky(canvas: Canvas, scene: Scene, state: State) -> None:
    high, low = np.array(_SKY[scene.time][0]), np.array(canvas.fog)
    if scene.weather != "clear":
        high = 0.3 * high + 0.7 * low
    share = (np.arange(canvas.horizon + 1) / canvas.horizon)[:, None] ** 1.4
    canvas.pixels[: canvas.horizon + 1] = ((1 - share) * high + share * low)[:, None]
    pan = state.heading_rad * canvas.focal_px
    if scene.weather == "clear":
        disc = {"day": (1.0, 0.97, 0.80), "dusk": (1.0, 0.80, 0.45), "night": (0.92, 0.93, 0.85)}[scene.time]
        row = {"day": 0.10, "dusk": 0.34, "night": 0.12}[scene.time] * canvas.rows
        column = (_number(scene.seed, 3) * canvas.columns * 2 - pan) % (canvas.columns * 2)
        canvas.ellipse(column, row, 7, 7, disc)
    _skyline(canvas, scene, pan)


def _skyline(canvas: Canvas, scene: Scene, pan: float) -> None:
    """Hills, or mountains with snow on top; they turn past as the car turns."""
    along = np.arange(canvas.columns) + pan + 500 * _number(scene.seed, 4)
    tall = {"mountains": 30.0, "forest": 7.0, "city": 5.0}.get(scene.place, 3.0)
    waves = np.sin(along / 31) + 0.6 * np.sin(along / 13 + 1) + 0.3 * np.sin(along / 5 + 2)
    top = canvas.horizon - tall * np.clip(0.55 + 0.3 * waves, 0.1, 1.2)
    rows = np.arange(canvas.rows)[:, None]
    colour = np.array(
        {"mountains": (0.38, 0.40, 0.48), "desert": (0.70, 0.52, 0.33)}.get(scene.place, (0.16, 0.30, 0.18))
    )
    seen = canvas.hazy(colour * np.array(_LIGHT[scene.time]), 60.0)
    body = (rows >= top) & (rows <= canvas.horizon)
    canvas.pixels[body] = seen
    if scene.place == "mountains":
        snow = body & (rows < top + 0.28 * tall) & (top < canvas.horizon - 0.5 * tall)
        canvas.pixels[snow] = canvas.hazy(np.array((0.95, 0.96, 1.0)) * np.array(_LIGHT[scene.time]), 60.0)


def _ground(canvas: Canvas, scene: Scene, state: State) -> None:
    depth, x = canvas.depth_m, canvas.x_m
    along = depth + state.distance_m
    white = scene.weather == "snow"
    base = np.array((0.88, 0.90, 0.93) if white else _GROUND[scene.place])
    bands = 1 + 0.07 * np.where((along // 4) % 2 == 0, 1, -1)
    colour = base * np.broadcast_to(bands, x.shape)[..., None]
    if scene.place == "coast":
        waves = 0.04 * np.sin(along * 1.3)
        sea = np.stack([0.10 + waves, 0.35 + waves, 0.62 + waves], -1)
        colour = np.where((x > 9)[..., None], np.broadcast_to(sea, colour.shape), colour)
    asphalt = np.array((0.30, 0.30, 0.32) if scene.weather != "rain" else (0.24, 0.26, 0.30))
    colour = np.where((np.abs(x) < ROAD_M)[..., None], asphalt, colour)
    width = LINE_M + depth * 0.004  # far lines stay about a pixel wide
    edge = np.abs(np.abs(x) - (ROAD_M - 0.3)) < width
    dash = (np.abs(x) < width) & ((along % DASH_M) < DASH_M / 2)
    colour = np.where((edge | dash)[..., None], np.array((0.93, 0.93, 0.88)), colour)
    light = np.array(_LIGHT[scene.time])
    if scene.time == "night":  # headlights
        beam = np.exp(-depth / 22) * np.exp(-((x / (2.5 + 0.15 * depth)) ** 2))
        light = light + 0.9 * beam[..., None] * np.array((1.0, 0.95, 0.8))
    canvas.ground[...] = canvas.hazy(np.clip(colour * light, 0, 1), np.broadcast_to(depth, x.shape))


def _beside(scene: Scene, state: State) -> Iterator[tuple[float, int, int]]:
    """Things beside the road, near ones first: distance, side (-1 left) and a number of their own."""
    spacing = _SPACING_M[scene.place]
    first = math.ceil((state.distance_m + 3.5) / spacing)
    for slot in range(first, first + int(SIGHT_M / spacing)):
        for side in (-1, 1):
            if scene.place == "coast" and side == 1:
                continue
            number = 2 * slot + (side + 1) // 2
            jitter = (_number(scene.seed, 100 + number) - 0.5) * 0.5 * spacing
            depth_m = slot * spacing + jitter - state.distance_m
            if depth_m > 3.2:
                yield depth_m, side, number


def _thing(canvas: Canvas, scene: Scene, depth_m: float, side: int, number: int) -> None:
    a, b = _number(scene.seed, 1000 + number), _number(scene.seed, 2000 + number)
    column, row, scale = canvas.place(side * (6.2 + 3.5 * a), depth_m)
    light = np.array(_LIGHT[scene.time])

    def seen(colour: Colour) -> Any:
        return canvas.hazy(np.array(colour) * light, depth_m)

    if scene.place == "city":
        column, row, scale = canvas.place(side * 9.5, depth_m)
        tall, half = (7 + 9 * b) * scale, 3.6 * scale
        grey = 0.42 + 0.25 * a
        canvas.box(column - half, row - tall, column + half, row, seen((grey, grey * 0.93, grey * 0.88)))
        lit = (0.95, 0.85, 0.45) if scene.time != "day" else (0.35, 0.45, 0.55)
        glow = canvas.hazy(np.array(lit), depth_m)
        for level in np.arange(1.6, 7 + 9 * b - 1, 3.0):
            for across in (-2.3, 0.0, 2.3):
                left, top = column + (across - 0.6) * scale, row - (level + 1.4) * scale
                canvas.box(left, top, left + 1.2 * scale, top + 1.4 * scale, glow)
    elif scene.place == "desert":
        tall = (1.6 + 1.5 * b) * scale
        for dx, low, high in ((0, 0, 1), (-0.6, 0.4, 0.8), (0.6, 0.3, 0.7)):
            middle = column + dx * scale
            canvas.box(
                middle - 0.2 * scale,
                row - high * tall,
                middle + 0.2 * scale,
                row - low * tall,
                seen((0.20, 0.45, 0.22)),
            )
        canvas.box(
            column - 0.6 * scale, row - 0.45 * tall, column + 0.6 * scale, row - 0.33 * tall, seen((0.20, 0.45, 0.22))
        )
    else:
        tall = (3.5 + 3 * b) * scale
        canvas.box(column - 0.25 * scale, row - 0.5 * tall, column + 0.25 * scale, row, seen((0.32, 0.22, 0.14)))
        leaf = (0.08 + 0.10 * a, 0.34 + 0.14 * b, 0.10) if scene.weather != "snow" else (0.70, 0.76, 0.74)
        canvas.ellipse(column, row - 0.68 * tall, 1.5 * scale, 0.38 * tall, seen(leaf))


def _gap_m(state: State) -> float:
    """The car ahead comes nearer when we roll, and sways a little."""
    return 7.5 + 0.12 * (state.speed_m_per_s - 11.0) + 0.6 * math.sin(state.distance_m / 23)


def _oncoming(canvas: Canvas, scene: Scene, state: State) -> None:
    """Now and then a car comes the other way, at our own speed."""
    every = 90.0
    depth_m = every * _number(scene.seed, 5) - 2 * state.distance_m
    depth_m = depth_m % every
    if 4.0 < depth_m < 60 and _number(scene.seed, 6) < 0.6:
        shade = list(COLOURS.values())[int(_number(scene.seed, 7) * len(COLOURS))]
        _car(canvas, scene, -1.9, depth_m, shade, rear=False)


def _car(canvas: Canvas, scene: Scene, x_m: float, depth_m: float, colour: Colour, *, rear: bool) -> None:
    column, row, scale = canvas.place(x_m, depth_m)
    light = 0.5 + 0.5 * np.array(_LIGHT[scene.time])  # our headlights, or lamps of its own

    def seen(paint: Colour) -> Any:
        return canvas.hazy(np.array(paint) * light, depth_m)

    half = 0.95 * scale
    canvas.box(column - half, row - 0.05 * scale, column + half, row + 0.12 * scale, (0.03, 0.03, 0.03), 0.6)
    for side in (-1, 1):
        canvas.box(
            column + side * 0.7 * scale - 0.2 * scale,
            row - 0.35 * scale,
            column + side * 0.7 * scale + 0.2 * scale,
            row + 0.04 * scale,
            seen((0.05, 0.05, 0.05)),
        )
    canvas.box(column - half, row - 0.95 * scale, column + half, row - 0.2 * scale, seen(colour))
    canvas.box(column - 0.78 * half, row - 1.45 * scale, column + 0.78 * half, row - 0.9 * scale, seen(colour))
    canvas.box(
        column - 0.64 * half, row - 1.36 * scale, column + 0.64 * half, row - 0.95 * scale, seen((0.16, 0.22, 0.28))
    )
    lamp = (0.95, 0.08, 0.05) if rear else (1.0, 0.97, 0.80)
    glow = canvas.hazy(np.array(lamp), depth_m)
    for side in (-1, 1):
        middle = column + side * 0.74 * half
        canvas.box(middle - 0.17 * scale, row - 0.80 * scale, middle + 0.17 * scale, row - 0.60 * scale, glow)


def _weather(canvas: Canvas, scene: Scene, state: State) -> None:
    """Drops and flakes fall on tracks of their own, so that they move from frame to frame as things do."""
    if scene.weather not in ("rain", "snow"):
        return
    rng = np.random.default_rng([scene.seed, 2])
    count, fall_px = (70, 34.0) if scene.weather == "rain" else (90, 7.0)
    columns, starts = rng.random(count) * canvas.columns, rng.random(count) * canvas.rows
    shade = np.array((0.80, 0.84, 0.90) if scene.weather == "rain" else (0.97, 0.97, 1.0))
    shade = shade * (0.4 + 0.6 * np.array(_LIGHT[scene.time]))
    for column, start in zip(columns, starts, strict=True):
        row = (start + fall_px * state.frame) % canvas.rows
        if scene.weather == "rain":
            canvas.box(column, row, column + 1, row + 9, shade, 0.45)
        else:
            drift = 5 * math.sin(state.frame / 7 + column)
            canvas.box(column + drift, row, column + drift + SUPERSAMPLE, row + SUPERSAMPLE, shade, 0.9)


def _number(seed: int, which: int) -> float:
    """A number in [0, 1) that a thing keeps for as long as it is there (splitmix64's mixing)."""
    z = (seed * 0x9E3779B97F4A7C15 + which * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (z ^ (z >> 31)) / 2**64
