"""Worlds of several views: layouts travel with their frames as the network takes them; sources keep their state."""

from __future__ import annotations

import shutil
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from worldrt.engine import bundle as b
from worldrt.engine.bundle import Layout
from worldrt.engine.errors import InputError
from worldrt.engine.weights import fingerprint
from worldrt.runtime.conditions.base import Cameras, ConditionFrame
from worldrt.runtime.live import offline
from worldrt.runtime.live.clock import SimulatedClock
from worldrt.runtime.live.layout import camera_numbers, layout_image
from worldrt.runtime.live.layout_world import LayoutWorld, Showing
from worldrt.runtime.live.pace import PaceOptions
from worldrt.runtime.live.session import WorldSession
from worldrt.runtime.live.steering import Written
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.pools.workers import DecodeWorker, DenoiseWorker
from worldrt.runtime.parallel.pools.world import pooled_world
from worldrt.runtime.scene.cameras import FRONT_THREE, transforms
from worldrt.runtime.schedule import methods

from ..parallel.pools.cluster import FakeCluster

GOLDEN = Path(__file__).parents[2] / "golden" / "opendwm"
NAMES = tuple(camera.name for camera in FRONT_THREE)
CAMERAS = Cameras(
    NAMES, np.stack([c.intrinsics for c in FRONT_THREE]), transforms([c.mount for c in FRONT_THREE])
)  # fmt: skip


class Bar:
    """A source that draws one bar, further to the right in each frame; under `DL`, to the left."""

    controls = ("D", "DL", "DR", "N")
    fps, size_px = 10.0, (128, 72)

    def __init__(self, seed=0, views=NAMES):
        self.views, self.place, self.index, self.seed, self.closed = tuple(views), 100 + seed, 0, seed, False

    def facts(self):
        return {"source": "bar", "seed": self.seed}

    def next(self, control):
        self.place += -7 if control == "DL" else 7
        images = {name: np.zeros((len(self.views), 72, 128, 3), np.uint8) for name in ("box", "map")}
        images["map"][:, :, self.place % 120 : self.place % 120 + 8, 1] = 255
        self.index += 1
        text = tuple(f"daytime. clear sky. {view}. {self.index // 4}" for view in self.views)
        return ConditionFrame(self.index - 1, images, CAMERAS, np.eye(4), text, self.fps)

    def state(self):
        return self.place, self.index

    def restore(self, state):
        self.place, self.index = state

    def close(self):
        self.closed = True


@pytest.fixture(scope="module", params=["torch", pytest.param("onnx", marks=pytest.mark.slow)])
def models(request, stubs, tmp_path_factory):
    """Of `nano-opendwm`; torch modules stand for its graphs, or it is exported."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "onnx":
            folder = request.getfixturevalue("opendwm_bundle")
        else:
            folder, modules = stand_in(tmp_path_factory.mktemp("opendwm"), stubs)
            stubs.run_by_torch(patch, modules)
        made = Models.open([folder], options={"threads": 1})
        yield made
        made.close()


def stand_in(folder, stubs, form="whole"):
    """A bundle as the exporter describes it, without graphs, and the module of each by its file. `form` is that of the
    denoiser."""
    from worldrt.export import checkpoint
    from worldrt.export.choose import model_of
    from worldrt.export.plan import Built, Options

    model = model_of("opendwm", Options("nano-opendwm"))
    root = folder / "checkpoint"
    model.make_checkpoint(root, 0)
    entries, modules, files, weights_of = {}, {}, {}, {}
    for part in model.parts:
        (folder / part.name).mkdir()
        found = checkpoint.find(root, part.wanted)
        weight_files = tuple(file.path.relative_to(root).as_posix() for file in found.files)
        weights = {key: value for file in found.files for key, value in load_tensors(file.path).items()}
        weights_of |= {name: fingerprint(root / name) for name in weight_files}
        graphs = {}
        own = form if part.task else "whole"
        for source in part.graphs(own, "float32", found.key_format):
            file = f"{part.name}/{source.name}.onnx"
            (folder / file).write_text(f"stands for {file}")
            modules[file] = source.module
            sha256, block = b.file_sha256(folder / file), part.instances.get(source.name, [0])[0]
            graphs[source.name] = stubs.graph_of(source, file, weights, sha256, block)
        for file in part.files:
            if file.make is not None:
                file.make(root, folder / file.name)
            else:
                shutil.copy(checkpoint.find_file(root, file.name, file.places, file.fetch), folder / file.name)
            files[file.name] = b.file_sha256(folder / file.name)
        entries[part.name] = part.describe(Built("float32", weight_files, graphs, own))
    texts = {name: entries[name] for name in ("clip", "clip2")}
    denoisers = {"world": entries["world"]}
    made = b.Manifest(
        b.SCHEMA, "opendwm", "nano-opendwm", {}, b.Weights("checkpoint", weights_of), denoisers, entries["vae"],
        entries["text"], files, texts,
    )  # fmt: skip
    b.write_manifest(folder, made)
    return folder, modules


def world_of(models, source=Bar, **options):
    """With a quarter of the steps."""
    options = {"schedule": methods.opendwm(6, 1)} | options
    return LayoutWorld(models, source, **options)


def session_of(world, signal, **options):
    return WorldSession(world, pace=PaceOptions(None), steering=Written(signal), **options)


def test_cameras_become_the_official_numbers():
    file = load_file(GOLDEN / "camera.safetensors")
    picture = np.zeros((3, 360, 640, 3), np.uint8)
    lens, pose = (file[f"batch.camera_{kind}"][0, 0].astype(np.float64) for kind in ("intrinsics", "transforms"))
    fps = float(file["batch.fps"][0])
    frame = ConditionFrame(0, {"box": picture}, Cameras(NAMES, lens, pose), np.eye(4), ("",) * 3, fps)
    for half in file["added_time_ids"]:
        np.testing.assert_allclose(camera_numbers(frame), half[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("camera", ["front", "front_left", "front_right"])
def test_layouts_are_brought_to_the_size_of_the_model_as_officially(camera):
    drawn = {
        kind: np.array(Image.open(GOLDEN / f"draw_{kind}_cam_{camera}.png").convert("RGB")) for kind in ("box", "map")
    }
    frame = ConditionFrame(0, {kind: image[None] for kind, image in drawn.items()}, CAMERAS, np.eye(4), ("",), 10.0)
    made = layout_image(frame, Layout(("box", "map"), 0.1255, 1), 304, 176)
    assert made.shape == (1, 6, 176, 304)
    for start, kind in ((0, "box"), (3, "map")):
        expected = np.array(Image.open(GOLDEN / f"draw_{kind}_cam_{camera}_304x176.png").convert("RGB"))
        np.testing.assert_allclose(made[0, start : start + 3] * 255, expected.transpose(2, 0, 1), atol=1 + 1e-3, rtol=0)


def test_a_world_is_the_same_at_once_and_live_and_from_a_snapshot(models):
    """Three views beside each other, frame by frame; a branch goes on from its own source, and others differ."""
    world = world_of(models, seed=3)
    signal = ["D"] * 8 + ["DL"] * 5
    session = session_of(world, signal, seed=3)
    session.start("wet road")
    frames, state = [], None
    for frame in session.frames():
        frames.append(frame.picture)
        if len(frames) == 4:
            state = session.snapshot()
    assert len(frames) == len(signal)
    assert frames[0].shape == (64, 3 * 112, 3) and frames[0].dtype == np.uint8
    assert world.video.width == 336 and world.video.fps == 10 and world.latents_per_second == 10
    again = session_of(world, signal, seed=3)
    again.restore(state)
    rest = [frame.picture for frame in again.frames()]
    assert len(rest) == len(frames) - 4 and all(map(np.array_equal, rest, frames[4:]))
    other = session_of(world, ["DL"] * 7, seed=3)
    other.start("wet road")
    turned = [frame.picture for frame in islice(other.frames(), 2)]
    assert not np.array_equal(turned[1], frames[1])
    for each in (session, again, other):
        each.stop()


def test_a_stream_in_time_is_what_is_made_at_once(models):
    """Conditions travel with their frames whatever the clock does: rows take four times as long as there is."""
    controls = ["D", "D", "DL"]
    at_once = list(islice(world_of(models, seed=3).generate("fog", 1, controls, seed=3), 3))
    _, signal = offline.signals(world_of(models, seed=3), 1, controls)
    clock = SimulatedClock({"denoise": 0.4, "decode": 0.03, "text": 0.2}.__getitem__)
    live = WorldSession(world_of(models, seed=3), seed=3, pace=PaceOptions(10.0), clock=clock, steering=Written(signal))
    live.start("fog")
    shown = [frame.picture for frame in islice(live.frames(), 3)]
    live.stop()
    assert all(map(np.array_equal, shown, at_once))


def test_a_length_is_counted_in_frames_of_the_source(models):
    world = world_of(models)
    made = list(world.generate("", 1, "D,D,DL"))
    assert len(made) == 10
    world = world_of(models)
    again = list(islice(world.generate("", 1, "D,D,DL"), 3))
    assert all(map(np.array_equal, again, made))


def far(folder, source):
    """In a worker, where nothing drives."""
    return world_of(Models.open([folder], options={"threads": 1}), source=lambda seed: source)


def test_a_world_in_pools_has_the_same_frames_though_workers_are_lost(models):
    """What is asked of a frame travels with its row; a layout lies over the frame that it was drawn for."""
    signal = ["D", "DL"] * 2
    showing = Showing("row", True)

    def frames(world):
        session = session_of(world, signal)
        session.start("wet road")
        made = [frame.picture for frame in session.frames()]
        session.stop()
        return made

    expected = frames(world_of(models, showing=showing))
    alone = world_of(models, showing=showing)
    make = partial(far, models.bundles[0].folder, alone.source)
    lost = iter(("row", "after row", "decode"))
    wanted = [next(lost)]
    counts = iter(range(1000))

    def dies(count, method):
        if not wanted or method != wanted[0] or next(counts) % 3 < 2:
            return False
        wanted[:] = [*islice(lost, 1)]
        return True

    cluster = FakeCluster(dies)
    world = pooled_world(alone, cluster, partial(DenoiseWorker, make), [partial(DecodeWorker, make)], window=2, every=3)
    made = frames(world)
    assert len(made) == len(expected) == len(signal) and all(map(np.array_equal, made, expected))
    assert (world.denoise.losses, world.decode[0].losses) == (2, 1)
    assert not alone._models.text("world").loaded, "models are in the workers alone"


def test_layouts_lie_over_the_frames_that_they_were_drawn_for(models):
    """The bar of frame n lies over picture n, though five frames are on their way between."""
    plain = list(islice(world_of(models).generate("", 1, "D"), 3))
    laid = list(islice(world_of(models, showing=Showing("column", True)).generate("", 1, "D"), 3))
    assert laid[0].shape == (3 * 64, 112, 3)
    for index, (without, over) in enumerate(zip(plain, laid, strict=True)):
        changed = (over[:64].astype(int) != without[:, :112]).any((0, 2))
        centre = ((100 + 7 * (index + 1)) % 120 + 4) / 128 * 112
        assert changed.any() and abs(np.flatnonzero(changed).mean() - centre) < 2


def test_prompts_are_encoded_every_few_frames_and_seen_one_frame_later(models):
    world = world_of(models)
    stream = world.stream(type("Told", (), {"text": "fog"}), 0)
    texts = [stream.condition("D")["text"] for _ in range(7)]
    stream.close()
    wanted = [np.stack([world.encoded(f"daytime. clear sky. {view}. {n} fog").text for view in NAMES]) for n in (0, 1)]
    for frame, text in enumerate(texts):
        assert np.array_equal(text, wanted[frame >= 5]), frame
    assert text.shape == (3, 48, 64) and not text[:, :24, 56:].any()


def test_a_world_says_what_it_cannot_use(models):
    with pytest.raises(InputError, match="expected 3 cameras"):
        LayoutWorld(models, lambda seed: Bar(seed, NAMES[:2]))
    with pytest.raises(InputError, match="go on with each frame"):
        world_of(models, commit_level=4)
    with pytest.raises(InputError, match="has views of 112x64"):
        world_of(models, size=(128, 64))
    frame = Bar().next(None)
    with pytest.raises(InputError, match=r"expected box, depth of 3 views"):
        layout_image(frame, Layout(("box", "depth"), 0.1, 3), 112, 64)
    s = LayoutWorld(models, lambda seed: Bar(seed)).schedule
    assert (s.steps, s.shift, s.slots, s.history, s.fill) == (24, 4, 6, 0, "cold") and len(s.terms) == 2
    facts = world_of(models).facts()
    assert facts["source"] == {"source": "bar", "seed": 0} and facts["family"] == "opendwm"
