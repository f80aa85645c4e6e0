"""A CARLA simulator that records what is asked of it: its own actors and clock, the package's transforms and map.

simulator = Simulator(roads.crossing())
source = CarlaSource(settings, 0, simulator.api)
simulator.alive = False                         # every call now times out, as the package says it
"""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace

import carla
import numpy as np

TIMED_OUT = "time-out of 2000ms while waiting for the simulator, make sure the simulator is ready and connected to {}"
KINDS = {
    "vehicle.lincoln.mkz_2017": "car",
    "vehicle.audi.tt": "car",
    "vehicle.volkswagen.t2": "van",
    "vehicle.bh.crossbike": "bicycle",
    "walker.pedestrian.0001": None,
    "sensor.camera.semantic_segmentation": None,
    "sensor.camera.rgb": None,
    "static.prop.barrel": None,
}
ATTRIBUTES = ("role_name", "image_size_x", "image_size_y", "fov", "base_type", "speed")


class Simulator:
    """What runs on the other side; `label` is what its semantic cameras see in their lower half."""

    def __init__(self, text, version="0.9.16"):
        self.text, self.version, self.alive = text, version, True
        self.frame, self.actors, self.calls, self.numbers = 100, [], [], itertools.count(1)
        self.settings = SimpleNamespace(synchronous_mode=False, fixed_delta_seconds=None)
        self.weather = carla.WeatherParameters(sun_altitude_angle=45.0, cloudiness=10.0)
        self.map, self.label, self.dumb_cameras, self.seen = carla.Map("offline", text), 1, False, {}
        self.api = SimpleNamespace(
            Client=lambda host, port, threads=0: Client(self, host, port),
            VehicleControl=carla.VehicleControl,
            Transform=carla.Transform,
            Location=carla.Location,
            Rotation=carla.Rotation,
        )

    def call(self, name, *values):
        if not self.alive:
            raise RuntimeError(TIMED_OUT.format("127.0.0.1:2000"))
        self.calls.append((name, *values))

    def named(self, name):
        """The recorded calls of a name, without it."""
        return [call[1:] for call in self.calls if call[0] == name]

    def put(self, kind, transform, parent=None, **attributes):
        """An actor that was there before."""
        blueprint = Blueprint(kind)
        for name, value in attributes.items():
            blueprint.set_attribute(name, value)
        actor = Actor(self, blueprint, transform, parent)
        self.actors.append(actor)
        return actor

    def restart(self, version=None):
        """As after a crash: nobody is there, and nothing is set."""
        self.alive, self.actors, self.version = True, [], version or self.version
        self.settings = SimpleNamespace(synchronous_mode=False, fixed_delta_seconds=None)

    def advance(self):
        self.frame += 1
        for actor in list(self.actors):
            actor.advance(self.settings.fixed_delta_seconds or 0.1)
        if not self.dumb_cameras:
            for actor in list(self.actors):
                actor.see()
        return self.frame


class Client:
    def __init__(self, simulator, host, port):
        self.simulator, self.place = simulator, (host, port)
        simulator.calls.append(("Client", host, port))

    def set_timeout(self, seconds):
        self.simulator.calls.append(("set_timeout", seconds))

    def get_client_version(self):
        return "0.9.16"

    def get_server_version(self):
        self.simulator.call("get_server_version")
        return self.simulator.version

    def get_world(self):
        self.simulator.call("get_world")
        return World(self.simulator)

    def get_trafficmanager(self):
        return SimpleNamespace(set_synchronous_mode=lambda on: self.simulator.call("traffic_synchronous", on))


class World:
    def __init__(self, simulator):
        self.simulator = simulator

    def get_settings(self):
        self.simulator.call("get_settings")
        return copy.copy(self.simulator.settings)

    def apply_settings(self, settings):
        self.simulator.call("apply_settings", settings.synchronous_mode, settings.fixed_delta_seconds)
        self.simulator.settings = settings

    def tick(self):
        self.simulator.call("tick")
        return self.simulator.advance()

    def wait_for_tick(self, seconds):
        self.simulator.call("wait_for_tick", seconds)
        return SimpleNamespace(frame=self.simulator.advance())

    def get_actors(self):
        self.simulator.call("get_actors")
        return list(self.simulator.actors)

    def get_weather(self):
        self.simulator.call("get_weather")
        return self.simulator.weather

    def get_map(self):
        self.simulator.call("get_map")
        real = self.simulator.map
        return SimpleNamespace(
            to_opendrive=real.to_opendrive,
            get_spawn_points=lambda: [
                point.transform for point in real.generate_waypoints(15.0) if not point.is_junction
            ],
        )

    def get_blueprint_library(self):
        self.simulator.call("get_blueprint_library")
        return [Blueprint(kind) for kind in KINDS]

    def try_spawn_actor(self, blueprint, transform, parent=None):
        self.simulator.call("spawn", blueprint.id, parent and parent.id)
        taken = any(
            actor.transform.location.distance(transform.location) < 2.0
            for actor in self.simulator.actors
            if actor.parent is None
        )
        if parent is None and taken:
            return None
        actor = Actor(self.simulator, blueprint, transform, parent)
        self.simulator.actors.append(actor)
        return actor


class Blueprint:
    def __init__(self, kind):
        self.id = kind
        base = KINDS[kind]
        self.attributes = {"base_type": base} if base else {}

    def has_attribute(self, name):
        return name in ATTRIBUTES

    def set_attribute(self, name, value):
        assert isinstance(value, str), "the package takes text alone"
        self.attributes[name] = value


class Actor:
    """A vehicle drives as it is told, 1 m/s2 for a throttle of 1; a child goes with its parent."""

    def __init__(self, simulator, blueprint, transform, parent):
        self.simulator, self.type_id, self.attributes = simulator, blueprint.id, dict(blueprint.attributes)
        self.transform, self.parent, self.id = transform, parent, next(simulator.numbers)
        self.control, self.speed, self.autopilot, self.listener = carla.VehicleControl(), 0.0, False, None
        size = (0.3, 0.3, 0.9) if self.type_id.startswith("walker") else (2.3, 1.0, 0.75)
        self.bounding_box = carla.BoundingBox(carla.Location(0.1, 0.2, size[2]), carla.Vector3D(*size))

    def get_transform(self):
        self.simulator.call("get_transform", self.id)
        if self.parent is None:
            return self.transform
        whole = np.array(self.parent.get_transform().get_matrix()) @ np.array(self.transform.get_matrix())
        return Placed(whole)

    def get_velocity(self):
        ahead = self.transform.get_forward_vector()
        return carla.Vector3D(ahead.x * self.speed, ahead.y * self.speed, ahead.z * self.speed)

    def apply_control(self, control):
        self.simulator.call("apply_control", control.throttle, control.steer, control.brake, control.reverse)
        self.control = control

    def set_autopilot(self, on):
        self.simulator.call("set_autopilot", on)
        self.autopilot = on

    def listen(self, callback):
        self.simulator.call("listen", self.attributes["role_name"])
        self.listener = callback

    def stop(self):
        self.simulator.call("stop", self.attributes["role_name"])
        self.listener = None

    def destroy(self):
        self.simulator.call("destroy", self.type_id)
        self.simulator.actors.remove(self)

    def advance(self, seconds):
        if not self.type_id.startswith("vehicle"):
            return
        drive = self.control.throttle * (-1 if self.control.reverse else 1)
        self.speed = 0.0 if self.control.brake >= 0.3 else self.speed + drive * seconds
        ahead, place = self.transform.get_forward_vector(), self.transform.location
        step = (3.0 if self.autopilot else self.speed) * seconds
        self.transform = carla.Transform(
            carla.Location(place.x + ahead.x * step, place.y + ahead.y * step, place.z), self.transform.rotation
        )

    def see(self):
        if self.listener is None:
            return
        width, height = (int(self.attributes[f"image_size_{axis}"]) for axis in "xy")
        picture = np.zeros((height, width, 4), np.uint8)
        picture[height // 2 :, :, 2] = self.simulator.label
        data = SimpleNamespace(raw_data=picture.tobytes(), width=width, height=height, frame=self.simulator.frame)
        self.simulator.seen[self.attributes["role_name"]] = self.simulator.frame
        self.listener(data)


class Placed:
    """The transform of a child, by its matrix."""

    def __init__(self, matrix):
        self.matrix = matrix

    def get_matrix(self):
        return self.matrix.tolist()

    def get_inverse_matrix(self):
        return np.linalg.inv(self.matrix).tolist()
