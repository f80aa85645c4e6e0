"""The streaming queue of OpenDWM equals the official one: model inputs, states and frames, with the recorded noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from worldrt.engine.errors import InputError
from worldrt.runtime.level_table import flow_euler
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.queue.replay import drain_replaying
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.guidance import classifier_free
from worldrt.runtime.schedule.plan import Plan

GOLDEN = Path(__file__).parents[1] / "golden" / "opendwm"


class Run:
    """A recorded run of the toy model; arrays keep their own layout, `ours` has frames at axis 2."""

    def __init__(self, name: str) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "np") as file:
            self.arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            meta = {key: value for key, value in file.metadata().items()}
        self.events = {event["name"]: event for event in json.loads(meta["events"])}
        self.texts = json.loads(meta["text_table"])
        self.guidance, self.views = float(meta["guidance"]), int(meta["V"])
        self.half = "float16" in meta["dtype"]
        self.tolerance = 4e-3 if self.half else 1e-5
        self.evaluated = 0
        self.sends = len(self.events) - 1  # and the flush

    def ours(self, array):
        return np.moveaxis(array, 3, 1)

    def noise(self, use, frames, levels, row):
        (frame,) = frames
        name, slot = (f"send{frame:02}", 0) if frame > 5 else ("send05", frame)
        return self.ours(self.arrays[f"{name}.noise"])[:, :, slot][None]

    def text(self, prompt):
        """Means over tokens and channels, and over the pooled vector."""
        part = {name: self.arrays[f"text.{self.texts.index(prompt)}.{name}"] for name in
                ("clip0", "clip1", "pool0", "pool1", "t5")}  # fmt: skip
        clip = np.concatenate((part["clip0"], part["clip1"]), axis=1)
        clip = np.pad(clip, ((0, 0), (0, part["t5"].shape[1] - clip.shape[1])))
        return np.concatenate((clip, part["t5"])).mean(), np.concatenate((part["pool0"], part["pool1"])).mean()

    def feed(self, frame):
        """For each view: image, text, pooled text and camera, as means; the prompts are the last encoded ones."""
        name = f"send{frame:02}"
        encoded = [event for event in sorted(self.events) if event <= name and self.events[event]["text_encoded"]]
        prompts = self.events[encoded[-1]]["prompts"]
        given = {key: self.arrays[f"{name}.in.{key}"] for key in
                 ("3dbox_images_u8", "hdmap_images_u8", "camera_transforms", "camera_intrinsics", "fps")}  # fmt: skip
        image = np.concatenate((given["3dbox_images_u8"], given["hdmap_images_u8"]), axis=3)[0, 0].mean((1, 2, 3)) / 255
        lens, pose = given["camera_intrinsics"][0, 0], given["camera_transforms"][0, 0]
        scalars = [lens[:, 0, 0] / 360, lens[:, 1, 1] / 360, lens[:, 0, 2] / 640, lens[:, 1, 2] / 360]
        camera = (given["fps"][0] + sum(scalars) + pose[:, :3, 2].sum(1) + pose[:, :3, 3].sum(1)) / 11
        text, pooled = np.array([self.text(prompt) for prompt in prompts]).reshape(2, self.views, 2).transpose(2, 0, 1)
        return Condition(frame, {"image": image, "text": text, "pooled": pooled, "camera": camera})

    def check(self, x, level):
        """The inputs of a model call are the recorded ones."""
        np.testing.assert_allclose(level[0], self.arrays["calls.timesteps"][self.evaluated], rtol=1e-6)
        recorded = self.ours(self.arrays["calls.latent_in"][self.evaluated][None].astype(np.float64))
        np.testing.assert_allclose(x, recorded, atol=self.tolerance, rtol=0)

    def velocity(self, branch, x, level, conditions):
        """The toy model with (1) or without (0) prompt and image, in float64."""
        tau = level.astype(np.float64)[:, None, :, None, None, None] / 1000
        out = 0.5 * tau * x + 0.2 * x.mean(2, keepdims=True) + 0.1 * x.mean(3, keepdims=True)
        out = out + 0.3 * np.sin(3 * tau) + 0.01 * np.arange(x.shape[2])[:, None, None, None]
        image = conditions["image"] if branch else np.float64(0.1255)
        parts = 0.4 * image + 0.5 * conditions["text"][:, :, branch] + 0.25 * conditions["pooled"][:, :, branch]
        return out + (parts + 0.02 * conditions["camera"])[:, None, :, :, None, None], tau

    def cond(self, x, level, conditions):
        self.check(x, level)
        v, tau = self.velocity(1, x.astype(np.float64), level, conditions)
        return (x - tau * v).astype(np.float32)

    def uncond(self, x, level, conditions):
        self.check(x, level)
        self.evaluated += 1  # after `cond`
        v, tau = self.velocity(0, x.astype(np.float64), level, conditions)
        return (x - tau * v).astype(np.float32)

    def guided_in_half(self, x, level, conditions):
        """Both, guided, with the roundings of a model in float16."""
        self.check(x, level)
        self.evaluated += 1
        seen = x.astype(np.float16).astype(np.float64)
        u, c = (self.velocity(branch, seen, level, conditions)[0].astype(np.float16) for branch in (0, 1))
        tau = level.astype(np.float64)[:, None, :, None, None, None] / 1000
        return (x - tau * (u + np.float16(self.guidance) * (c - u)).astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("name", ["queue_toy", "queue_toy_fp16"])
def test_a_run_equals_the_official_one(name):
    run = Run(name)
    schedule, precision, models = methods.opendwm(), "float32", {"cond": run.cond, "uncond": run.uncond}
    if run.half:
        precision, models = "float16", run.guided_in_half
    else:
        schedule = replace(schedule, terms=classifier_free(schedule.terms, run.guidance))
    shape, table = run.ours(run.arrays["send05.noise"])[:, :, 0].shape, flow_euler(24, shift=3.0)
    queue = Queue(Plan(schedule), table, models, shape, feed=run.feed, noise=run.noise, precision=precision)

    def same(latent, recorded):
        scaled = np.moveaxis(latent.latent[0], 0, 1) / 1.5305 + 0.0609  # (V, C, H, W): the decoder is the identity
        np.testing.assert_allclose(scaled, recorded, atol=run.tolerance, rtol=0)

    for send in range(5, run.sends):
        frames = []
        while not frames:
            frames = queue.run()
        assert [frame.number for frame in frames] == [send - 5]
        same(frames[0], run.arrays[f"send{send:02}.emitted.0"])
        after = run.ours(run.arrays[f"send{send:02}.latents_after"])
        np.testing.assert_allclose(queue.slots.latents, after, atol=run.tolerance, rtol=0)
        assert run.evaluated == sum(run.events[f"send{send:02}"][key] for key in ("first_call", "num_calls"))
    drained = list(drain_replaying(queue))
    assert [frame.number for frame in drained] == list(range(run.sends - 5, run.sends))
    for index, frame in enumerate(drained):
        same(frame, run.arrays[f"flush.emitted.{index}"])
    after = run.ours(run.arrays["flush.latents_after"])
    np.testing.assert_allclose(queue.slots.latents, after, atol=run.tolerance, rtol=0)
    assert run.evaluated == len(run.arrays["calls.timesteps"])
    assert queue.done and queue.run() == []


def test_labels_are_the_official_indices():
    run = Run("queue_toy")
    plan = Plan(methods.opendwm())
    shown = [24 - np.array(row.levels) for _, row in zip(range(52), plan.rows(), strict=False)]
    assert np.array_equal(shown, run.arrays["calls.indices"][:52])
    sigmas = flow_euler(24, shift=3.0).noise[::-1]
    np.testing.assert_allclose(sigmas, run.arrays["schedule.sigmas"], atol=1e-7, rtol=0)


def test_the_replaying_drain_is_for_its_own_schedule_only():
    queue = Queue(Plan(methods.opendwm()), flow_euler(24), lambda x, level, conditions: x, (1, 1, 2, 2))
    with pytest.raises(InputError, match="just left"):
        next(drain_replaying(queue))
