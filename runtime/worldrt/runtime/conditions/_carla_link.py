"""A connection to a CARLA simulator: who drives there, with which cameras, and what was changed for it."""

from __future__ import annotations

import fnmatch
import random
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.conditions._settings import Settings
from worldrt.runtime.scene.cameras import Camera
from worldrt.runtime.scene.prompt import Labels

SEMANTIC = "sensor.camera.semantic_segmentation"
HERO = "hero"


class Link:
    """Raises `InputError` for what cannot be mended by waiting, and `RuntimeError`, as the package does, where the
    simulator does not answer."""

    def __init__(self, api: Any, settings: Settings, seed: int) -> None:
        self._api, self._settings, self._random = api, settings, random.Random(seed)
        self._spawned: list[Any] = []
        self._changed: Any = None
        self._autopilot = False
        self.client = api.Client(settings.host, settings.port, 1)
        self.client.set_timeout(settings.timeout_s)
        check_versions(self.client)
        self.world = self.client.get_world()
        self.pictures = Pictures()
        try:
            self._take_time()
            self.ego = self._hero()
            self.cameras = {camera.name: self._camera(camera) for camera in settings.cameras}
            for actor in settings.actors:
                self._spawn(actor)
            for name, sensor in self.cameras.items():
                sensor.listen(self.pictures.taker(name))
        except BaseException:
            self.close()
            raise

    def tick(self) -> int:
        """Go on by one frame, or wait for whoever is the master; the number of the simulator's frame."""
        if self._settings.master:
            return int(self.world.tick())
        return int(self.world.wait_for_tick(self._settings.timeout_s).frame)

    def labels(self, frame: int) -> list[Labels]:
        """The semantic picture (h, w) of each camera of that frame or a later one."""
        return self.pictures.wait(list(self.cameras), frame, self._settings.timeout_s)

    def others(self) -> list[Any]:
        """Vehicles and walkers, but for the one that is driven."""
        found = self.world.get_actors()
        return [a for a in found if a.id != self.ego.id and a.type_id.startswith(("vehicle", "walker.pedestrian"))]

    def drive(self, control: str | None) -> None:
        """A control as pedals and wheel; None: the simulator's traffic manager drives."""
        if control is None:
            if not self._autopilot:
                if self._settings.master:
                    self.client.get_trafficmanager().set_synchronous_mode(True)
                self.ego.set_autopilot(True)
                self._autopilot = True
            return
        if self._autopilot:
            self.ego.set_autopilot(False)
            self._autopilot = False
        self.ego.apply_control(self._api.VehicleControl(**pedals(control, self._speed_mps())))

    def close(self) -> None:
        """Leave the simulator as it was, as far as it still answers."""
        for sensor in getattr(self, "cameras", {}).values():
            with suppress(RuntimeError):
                sensor.stop()
        if self._autopilot:
            with suppress(RuntimeError):
                self.ego.set_autopilot(False)
        for actor in reversed(self._spawned):
            with suppress(RuntimeError):
                actor.destroy()
        self._spawned = []
        if self._changed is not None:
            with suppress(RuntimeError):
                self.world.apply_settings(self._changed)
            self._changed = None

    def _take_time(self) -> None:
        """As the master: the simulator waits for our ticks, each of which lasts one frame."""
        if self._settings.master:
            before, wanted = self.world.get_settings(), self.world.get_settings()
            wanted.synchronous_mode, wanted.fixed_delta_seconds = True, 1 / self._settings.fps
            self.world.apply_settings(wanted)
            self._changed = before
            self.world.tick()
        else:
            self.world.wait_for_tick(self._settings.timeout_s)

    def _hero(self) -> Any:
        """The vehicle whose role is that of the hero; a new one where there is none."""
        for actor in self.world.get_actors():
            if actor.type_id.startswith("vehicle") and actor.attributes.get("role_name") == HERO:
                return actor
        made: dict[str, Any] = {"id": self._settings.hero, "attributes": {"role_name": HERO}}
        if self._settings.hero_spawn is not None:
            made["spawn_index"] = self._settings.hero_spawn
        hero = self._spawn(made)
        if hero is None:
            raise InputError(
                f"carla: no place for {self._settings.hero} is free; give another hero_spawn, or start one whose "
                f"role_name is {HERO}"
            )
        if self._settings.master:
            self.world.tick()
        return hero

    def _camera(self, camera: Camera) -> Any:
        """The hero's semantic camera of that name; a new one where there is none."""
        mounted = (a for a in self.world.get_actors() if a.parent is not None and a.parent.id == self.ego.id)
        for actor in mounted:
            if actor.type_id == SEMANTIC and actor.attributes.get("role_name") == camera.name:
                width, height = (int(actor.attributes[f"image_size_{axis}"]) for axis in "xy")
                if (width, height) != (camera.width_px, camera.height_px):
                    raise InputError(
                        f"carla: {camera.name} has pictures of {width}x{height}, the configuration has "
                        f"{camera.width_px}x{camera.height_px}; make them the same"
                    )
                return actor
        attributes = {
            "image_size_x": str(camera.width_px),
            "image_size_y": str(camera.height_px),
            "fov": str(camera.fov_deg),
            "role_name": camera.name,
        }
        place = {"location": camera.location_m, "rotation": camera.rotation_deg}
        made = self._spawn({"id": SEMANTIC, "attributes": attributes} | place, self.ego)
        if made is None:
            raise InputError(f"carla: the camera {camera.name} could not be put on the vehicle")
        return made

    def _spawn(self, actor: Mapping[str, Any], parent: Any = None) -> Any:
        """Put an actor somewhere; None where its place is taken. Raises `InputError` for a kind that is not there."""
        api, library = self._api, self.world.get_blueprint_library()
        pattern = actor.get("pattern", actor.get("id", ""))
        kinds = sorted((kind for kind in library if fnmatch.fnmatch(kind.id, pattern)), key=lambda kind: str(kind.id))
        if not kinds:
            raise InputError(f"carla: the simulator has no '{pattern}'")
        kind = self._random.choice(kinds)
        for name, value in actor.get("attributes", {}).items():
            if not kind.has_attribute(name):
                raise InputError(f"carla: {kind.id} has no attribute '{name}'")
            kind.set_attribute(name, value)
        if "location" in actor:
            rotation = api.Rotation(*actor.get("rotation", (0.0, 0.0, 0.0)))
            place = api.Transform(api.Location(*actor["location"]), rotation)
        else:
            places = self.world.get_map().get_spawn_points()
            if not places:
                raise InputError("carla: the map has no place for a vehicle; give a location")
            place = places[actor.get("spawn_index", self._random.randrange(len(places))) % len(places)]
        made = self.world.try_spawn_actor(kind, place, parent)
        if made is not None:
            self._spawned.append(made)
        return made

    def _speed_mps(self) -> float:
        """Ahead; negative where it goes back."""
        speed, ahead = self.ego.get_velocity(), self.ego.get_transform().get_forward_vector()
        return float(speed.x * ahead.x + speed.y * ahead.y + speed.z * ahead.z)


def check_versions(client: Any) -> None:
    """Raises `InputError` where the package and the simulator are not of one version."""
    own, there = str(client.get_client_version()), str(client.get_server_version())
    if own.split("-")[0] != there.split("-")[0]:
        raise InputError(
            f"carla: the simulator is of version {there[:40]}, the package of {own[:40]}; start the one of the "
            f"package, or pip install carla=={there[:40]} where there is one for this Python"
        )


def pedals(control: str, speed_mps: float) -> dict[str, Any]:
    """The fields of a `carla.VehicleControl`: D ahead, B brake and then back, N let it stand; a negative wheel turns
    left."""
    made: dict[str, Any] = {"steer": {"L": -0.8, "R": 0.8}.get(control[1:], 0.0)}
    if control.startswith("D"):
        return made | ({"throttle": 0.8} if speed_mps > -0.5 else {"brake": 1.0})
    if control.startswith("B"):
        return made | ({"brake": 1.0} if speed_mps > 0.5 else {"throttle": 0.8, "reverse": True})
    return made | {"brake": 0.3}


class Pictures:
    """The newest semantic picture of each camera; the simulator's threads put them here."""

    def __init__(self) -> None:
        self._new = threading.Condition()
        self._labels: dict[str, tuple[int, Labels]] = {}

    def taker(self, name: str) -> Any:
        """What a camera calls with each picture."""

        def take(data: Any) -> None:
            # BGRA, of which red is the label
            labels = np.frombuffer(data.raw_data, np.uint8).reshape(data.height, data.width, 4)[:, :, 2].copy()
            with self._new:
                self._labels[name] = int(data.frame), labels
                self._new.notify_all()

        return take

    def wait(self, names: list[str], frame: int, timeout_s: float) -> list[Labels]:
        """Raises `RuntimeError` where not all come in time."""
        end_s = time.monotonic() + timeout_s
        with self._new:
            while True:
                missing = [name for name in names if self._labels.get(name, (-1,))[0] < frame]
                if not missing:
                    return [self._labels[name][1] for name in names]
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    raise RuntimeError(f"no picture of {', '.join(missing)} within {timeout_s:g} s")
                self._new.wait(left_s)
