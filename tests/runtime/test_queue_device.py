"""The queue on a fake GPU against that on the host: the same latents, one graph a row, and what crosses meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from worldrt.engine.cuda import CudaDevice
from worldrt.engine.errors import BackendError, InputError
from worldrt.engine.graphs import StepGraphs
from worldrt.engine.session import Call
from worldrt.kernels import cuda as kernels_cuda
from worldrt.runtime.bound import BoundDenoiser
from worldrt.runtime.queue import device
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.device import DeviceQueue
from worldrt.runtime.queue.device_slots import Windows
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.queue.state import branch, restore, snapshot
from worldrt.runtime.samplers_vp import dpm_sde, phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.guidance import Segment, classifier_free, history_guidance
from worldrt.runtime.schedule.plan import Plan

from ..fakes.cuda import COPY, MAIN, FakeCuda
from ..fakes.kernels import install_kernels

SHAPE = (1, 2, 3, 4)
CONTROLS = np.random.default_rng(5).normal(size=(9, 4)).astype(np.float32)
PLANS = {
    "stage 4": (methods.swin_dpm(4, 4, 1), phased_ddim(4, 4)),
    "stage 3": (methods.swin_dpm(20, 4, 4), dpm_sde(20)),
    "lookahead": (methods.fifo(2, 4), dpm_sde(8)),
    "pyramid": (methods.pyramid(4, 2), phased_ddim(4, 4)),
    "clip": (methods.full_clip(4, 3), dpm_sde(4)),
}


def x0_of(x, level, text, control):
    """A model of a few sums, in float32."""
    at = level[:, None, :, None, None] / np.float32(1000)
    mixed = np.float32(0.5) * x + np.float32(0.3) * np.sin(x.mean(2, keepdims=True))
    return mixed + np.cos(at) + control.sum(2)[:, None, :, None, None] + text.sum((1, 2))[:, None, None, None, None]


class Gpu:
    """A fake GPU whose denoiser is `x0_of`."""

    def __init__(self, monkeypatch, greedy=(MAIN, COPY), mode="on"):
        self.cuda, self.mode, self.bound = FakeCuda(greedy=greedy), mode, []
        self.device = CudaDevice(0, self.cuda)
        install_kernels(monkeypatch, self.cuda)
        self.texts = np.ones((1, 2), np.float32), np.full((1, 2), -0.1, np.float32)

    def array(self, buffer):
        return self.cuda.view(buffer.pointer, buffer.nbytes).view(buffer.dtype).reshape(buffer.shape)

    def bind(self, frames, guided=False):
        """As a denoiser of one call for both texts."""
        batch = 1 + guided
        shapes = {"x": (batch, 2, frames, 3, 4), "level": (batch, frames), "last_level": (batch, 1),
                  "control": (batch, frames, 4), "text": (batch, 1, 2)}  # fmt: skip
        inputs = {name: self.device.empty(shape, "float32") for name, shape in shapes.items()}
        x0 = self.device.empty(shapes["x"], "float32")

        def evaluate():
            arrays = {name: self.array(buffer) for name, buffer in inputs.items()}
            assert np.array_equal(arrays["last_level"], arrays["level"][:, -1:])
            self.array(x0)[...] = x0_of(*(arrays[name] for name in ("x", "level", "text", "control")))

        call = Call({}, lambda: self.cuda.enqueue(self.device.stream, evaluate))
        texts = tuple(inputs["text"][i : i + 1] for i in range(batch))
        graphs = StepGraphs(self.device, mode=self.mode)
        made = BoundDenoiser(
            self.device, batch, inputs, texts, (call,), x0[0:1], x0[1:2] if guided else None, graphs=graphs
        )
        self.bound.append(made)
        return made

    def queue(self, plan, table, **options):
        guided = len(plan.schedule.terms) > 1
        windows = Windows(self.device, lambda frames: self.bind(frames, guided))
        return DeviceQueue(plan, table, windows, SHAPE, text=lambda: self.texts, **options)


@pytest.fixture
def gpu(monkeypatch):
    return lambda **options: Gpu(monkeypatch, **options)


def feed(frame):
    return Condition(frame + feed.given, {"control": CONTROLS[(frame * frame) % 9]})


def frames_of(queue, video, rows):
    feed.given = queue.schedule.given
    queue.start(video)
    return [frame for _ in range(rows) for frame in queue.run()]


def host(plan, table, texts, **options):
    def model(text):
        return lambda x, level, conditions: x0_of(x, level, text[None], conditions["control"])

    return Queue(plan, table, {"cond": model(texts[0]), "uncond": model(texts[1])}, SHAPE, **options)


def video_of(schedule):
    known = schedule.given + (schedule.slots if schedule.fill == "renoise" else 0)
    drawn = np.random.default_rng(3).normal(size=(1, 2, known, 3, 4)).astype(np.float32)
    return drawn if known else None


@pytest.mark.parametrize("greedy", [(MAIN, COPY), ()])
@pytest.mark.parametrize("name", PLANS)
def test_a_queue_on_a_gpu_is_that_on_the_host_to_the_bit(gpu, name, greedy):
    schedule, table = PLANS[name]
    plan, card = Plan(schedule), gpu(greedy=greedy)
    rows = 2 * schedule.steps + 6
    got = frames_of(card.queue(plan, table, feed=feed, seed=7), video_of(schedule), rows)
    expected = frames_of(host(plan, table, card.texts, feed=feed, seed=7), video_of(schedule), rows)
    assert [f.number for f in got] == [f.number for f in expected] and len(got) > 1
    assert all(np.array_equal(a.latent, b.latent) for a, b in zip(got, expected, strict=True))
    assert not card.cuda.violations


def test_a_prompt_scale_takes_both_texts(gpu):
    schedule, table = PLANS["stage 3"]
    plan, card = Plan(replace(schedule, terms=classifier_free(schedule.terms, 6.0))), gpu()
    got = frames_of(card.queue(plan, table, feed=feed), video_of(schedule), 12)
    expected = frames_of(host(plan, table, card.texts, feed=feed), video_of(schedule), 12)
    assert len(got) == 8 and not np.array_equal(*card.texts)
    for a, b in zip(got, expected, strict=True):  # x0 + g (x0 - u) here, s x0 + (1 - s) u there
        assert np.abs(a.latent - b.latent).max() <= 1e-5 * np.abs(b.latent).max()


@pytest.mark.parametrize(("name", "launches"), [("stage 4", 1), ("stage 3", 5)])
def test_a_steady_row_is_one_launch_and_nothing_but_clean_latents_crosses(gpu, name, launches):
    """`launches` rows for each group of frames, with controls that the device has seen."""
    schedule, table = PLANS[name]
    card = gpu()
    queue = card.queue(Plan(schedule), table, feed=lambda frame: Condition(frame + 1, {"control": CONTROLS[0]}))
    queue.start(video_of(schedule))
    for _ in range(4 * schedule.shift):
        queue.run()
    before = Counter(card.cuda.calls)
    frames = [frame for _ in range(10 * launches) for frame in queue.run()]
    calls = Counter(card.cuda.calls) - before
    assert len(frames) == 10 * schedule.group and calls["cudaGraphLaunch"] == 10 * launches
    assert calls["h2d"] == 0 and calls["d2h"] == len(frames) == calls["cudaStreamSynchronize"]
    assert calls["counter_normal"] == calls["cudaMalloc"] == calls["cudaGraphInstantiate"] == 0
    assert calls["multistep_update"] == len(frames)  # a clean latent is brought together to leave
    assert not card.cuda.violations


def test_a_new_control_is_sent_once_and_frame_numbers_in_thousands(gpu, monkeypatch):
    monkeypatch.setattr(device, "COUNTED", 8)
    schedule, table = PLANS["stage 4"]
    card = gpu()
    queue = card.queue(Plan(schedule), table, feed=feed, seed=7)
    got = frames_of(queue, video_of(schedule), 20)
    before = card.cuda.calls["h2d"]
    got += [frame for _ in range(16) for frame in queue.run()]
    assert card.cuda.calls["h2d"] - before <= 16 + 2  # windows of controls that are new, and numbers twice
    expected = frames_of(host(Plan(schedule), table, card.texts, feed=feed, seed=7), video_of(schedule), 36)
    assert all(np.array_equal(a.latent, b.latent) for a, b in zip(got, expected, strict=True))


def test_another_text_is_seen_from_the_next_row_on(gpu):
    schedule, table = PLANS["stage 4"]
    card, plan = gpu(), Plan(schedule)
    there, here = card.queue(plan, table, feed=feed), host(plan, table, card.texts, feed=feed)
    assert all(np.array_equal(a.latent, b.latent) for a, b in zip(
        frames_of(there, video_of(schedule), 3), frames_of(here, video_of(schedule), 3), strict=True))  # fmt: skip
    card.texts = (np.full((1, 2), 0.3, np.float32), None)
    other = host(plan, table, card.texts, feed=feed)
    restore(other, snapshot(here))
    other.levels[:] = here.levels
    assert np.array_equal(there.run()[0].latent, other.run()[0].latent)


@pytest.mark.parametrize("name", ["stage 4", "stage 3"])
def test_states_go_from_device_to_host_and_back(gpu, name):
    """Between rows, with frames that are about to leave; and a branch goes its own way on the same denoiser."""
    schedule, table = PLANS[name]
    card, plan = gpu(), Plan(schedule)
    queue = card.queue(plan, table, feed=feed, seed=7)
    frames_of(queue, video_of(schedule), schedule.shift + 1)
    state = snapshot(queue)
    on_host = host(plan, table, card.texts, feed=feed, seed=7)
    restore(on_host, state)
    other = branch(queue, feed)
    for _ in range(2 * schedule.shift):
        rows = [q.run() for q in (queue, on_host, other)]
        for frames in zip(*rows, strict=True):
            assert all(np.array_equal(frames[0].latent, frame.latent) for frame in frames)
    restore(queue, state)
    again = [frame.latent for _ in range(schedule.shift) for frame in queue.run()]
    restore(on_host, state)
    assert all(map(np.array_equal, again, (f.latent for _ in range(schedule.shift) for f in on_host.run())))


@pytest.mark.parametrize("drain", ["pad", "shrink"])
def test_a_stream_that_ends_drains_as_on_the_host(gpu, drain):
    schedule = replace(PLANS["stage 4"][0], drain=drain)

    def ends(frame):
        return feed(frame) if frame < 7 else None

    card, plan = gpu(), Plan(schedule)
    queues = card.queue(plan, PLANS["stage 4"][1], feed=ends), host(plan, PLANS["stage 4"][1], card.texts, feed=ends)
    got, expected = (frames_of(queue, video_of(schedule), 9) for queue in queues)
    assert queues[0].done and [f.number for f in got] == list(range(7))
    assert all(np.array_equal(a.latent, b.latent) for a, b in zip(got, expected, strict=True))


def test_what_a_gpu_does_not_do_is_refused(gpu, monkeypatch):
    schedule, table = PLANS["stage 4"]
    terms = history_guidance(4, 1, [Segment(2.0)])
    with pytest.raises(InputError, match="expected a prompt scale"):
        gpu().queue(Plan(replace(schedule, terms=terms)), table)
    card = gpu()
    monkeypatch.setattr(kernels_cuda, "missing", lambda: "not built")
    with pytest.raises(BackendError, match="not built"):
        card.queue(Plan(schedule), table)
