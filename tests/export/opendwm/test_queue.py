"""The official streaming run with the real network, from condition frames to latents."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch

from worldrt.runtime.conditions.base import Cameras, ConditionFrame
from worldrt.runtime.level_table import flow_euler
from worldrt.runtime.live.layout import camera_numbers
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.queue.replay import drain_replaying
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.guidance import classifier_free
from worldrt.runtime.schedule.plan import Plan


class Run:
    """Feeds a queue as the official run was fed. Residuals are made once for each frame, and travel with it."""

    def __init__(self, golden):
        recorded = golden("queue_dit")
        self.network = golden("dit_a")
        self.arrays = {name: value.numpy() for name, value in recorded.tensors.items()}
        self.events = {event["name"]: event for event in json.loads(recorded.metadata["events"])}
        self.texts = json.loads(recorded.metadata["text_table"])
        self.guidance, self.views = float(recorded.metadata["guidance"]), int(recorded.metadata["V"])
        self.sends = len(self.events) - 1
        self.prompts = None
        empty = torch.full(self.image(0).shape, 0.1255)
        self.nothing = self.network.adapter(empty)[0].numpy()

    def image(self, frame):
        given = [self.arrays[f"send{frame:02}.in.{name}_images_u8"][0] for name in ("3dbox", "hdmap")]
        return torch.from_numpy(np.concatenate(given, axis=2)).float() / 255

    def noise(self, use, frames, levels, row):
        (frame,) = frames
        name, slot = (f"send{frame:02}", 0) if frame > 5 else ("send05", frame)
        return np.moveaxis(self.arrays[f"{name}.noise"], 3, 1)[:, :, slot][None]

    def text(self, prompts):
        """The rows of CLIP side by side, filled up with zeros, then those of T5; and both pooled ones."""
        rows, pooled = [], []
        for prompt in prompts:
            part = {name: self.arrays[f"text.{self.texts.index(prompt)}.{name}"] for name in
                    ("clip0", "clip1", "pool0", "pool1", "t5")}  # fmt: skip
            clip = np.concatenate((part["clip0"], part["clip1"]), axis=1)
            clip = np.pad(clip, ((0, 0), (0, part["t5"].shape[1] - clip.shape[1])))
            rows.append(np.concatenate((clip, part["t5"])))
            pooled.append(np.concatenate((part["pool0"], part["pool1"])))
        return np.stack(rows), np.stack(pooled)

    def feed(self, frame):
        name = f"send{frame:02}"
        if name not in self.events:
            return None
        if self.events[name]["text_encoded"]:
            self.prompts = self.events[name]["prompts"]
        halves = self.prompts[: self.views], self.prompts[self.views :]
        without, with_prompt = (self.text(prompts) for prompts in halves)
        given = {key: self.arrays[f"{name}.in.{key}"] for key in ("camera_intrinsics", "camera_transforms", "fps")}
        lens, pose = (given[f"camera_{kind}"][0, 0].astype(np.float64) for kind in ("intrinsics", "transforms"))
        cameras = Cameras(tuple("abc"), lens, pose)
        picture = np.zeros((self.views, 360, 640, 3), np.uint8)
        shown = ConditionFrame(frame, {"box": picture}, cameras, np.eye(4), ("",) * self.views, float(given["fps"][0]))
        residual = self.network.adapter(self.image(frame))[0].numpy()
        after = self.arrays.get(f"{name}.cond_after.added_time_ids")
        camera = camera_numbers(shown)
        if after is not None:
            np.testing.assert_allclose(camera, after[0, -1], atol=1e-5, rtol=0)
        values = {"text": np.stack((without[0], with_prompt[0])), "pooled": np.stack((without[1], with_prompt[1]))}
        return Condition(frame, values | {"residual": residual, "camera": camera})

    def model(self, branch):
        def x0(x, level, conditions):
            residual = conditions["residual"] if branch else np.broadcast_to(
                self.nothing, conditions["residual"].shape
            )  # fmt: skip
            text, pooled = (conditions[name][:, :, branch] for name in ("text", "pooled"))
            arrays = (x, level[..., None].repeat(self.views, 2), text, pooled, conditions["camera"], residual)
            tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
            numbers = torch.arange(x.shape[2]).float(), torch.arange(self.views).float()
            velocity = self.network.dit(*tensors, *numbers).numpy()
            return x - level[:, None, :, None, None, None] / np.float32(1000) * velocity

        return x0


def test_a_run_of_the_network_equals_the_official_one(golden):
    run = Run(golden)
    schedule = methods.opendwm()
    schedule = replace(schedule, terms=classifier_free(schedule.terms, run.guidance))
    shape = run.noise(None, (0,), None, 0)[0].shape
    models = {"cond": run.model(1), "uncond": run.model(0)}
    queue = Queue(Plan(schedule), flow_euler(24, shift=3.0), models, shape, feed=run.feed, noise=run.noise)
    for send in range(5, run.sends):
        frames = []
        while not frames:
            frames = queue.run()
        latent = np.moveaxis(frames[0].latent[0], 0, 1) / 1.5305 + 0.0609
        np.testing.assert_allclose(latent, run.arrays[f"send{send:02}.emitted.0"], atol=5e-4, rtol=0)
    drained = list(drain_replaying(queue))
    for index, frame in enumerate(drained):
        latent = np.moveaxis(frame.latent[0], 0, 1) / 1.5305 + 0.0609
        np.testing.assert_allclose(latent, run.arrays[f"flush.emitted.{index}"], atol=5e-4, rtol=0)
    assert len(drained) == 5
