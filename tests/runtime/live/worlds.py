"""A world model that is a few lines of numpy: its pictures depend on all frames, controls and prompts before."""

from __future__ import annotations

import hashlib

import numpy as np

from worldrt.engine.errors import InputError
from worldrt.runtime.live.controls import VOCABULARY
from worldrt.runtime.queue.conditions import Condition
from worldrt.runtime.queue.queue import Queue
from worldrt.runtime.samplers_vp import phased_ddim
from worldrt.runtime.schedule import methods
from worldrt.runtime.schedule.plan import Plan
from worldrt.runtime.sinks.base import VideoFormat

SHAPE = (1, 2, 3, 4)


def x0_of(told):
    def x0(x, level, conditions):
        at = level[:, None, :, None, None] / np.float32(1000)
        steered = conditions["control"][:, None, :, :1, None]
        mixed = np.float32(0.5) * x + np.float32(0.3) * np.sin(x.mean(2, keepdims=True))
        return mixed + np.float32(0.2) * np.cos(3 * at) + steered + np.float32(told.text)

    return x0


class ToyDecoder:
    """Four pictures of a latent, which depend on all latents before it."""

    def __init__(self, pictures):
        self.pictures = pictures
        self.memory = np.zeros(SHAPE[1:], np.float32)

    def __call__(self, latents):
        for i in range(latents.shape[2]):
            self.memory = np.float32(0.5) * self.memory + latents[0, :, i]
            for shift in range(self.pictures):
                plane = np.tanh(self.memory.sum(0) + shift) * 127 + 128
                yield np.repeat(plane.astype(np.uint8)[:, :, None], 3, axis=2)

    def state(self):
        return self.memory.copy()

    def restore(self, state):
        self.memory = state.copy()


class ToyModel:
    """`broken` makes the next call of the denoiser fail."""

    controls = VOCABULARY

    def __init__(self, schedule=None, table=None, pictures=4):
        self.schedule = schedule or methods.swin_dpm(4, 4, 1)
        self.table = table or phased_ddim(4, 4)
        self.pictures = pictures
        self.plan = Plan(self.schedule)
        self.video = VideoFormat(SHAPE[3], SHAPE[2], 16)
        self.frames_at_once = pictures * self.schedule.group
        self.encoded = []
        self.broken = None

    def facts(self):
        return {"model": "toy", "steps": self.schedule.steps}

    def check(self, prompt):
        if len(prompt) > 100:
            raise InputError("prompt: too long for the toy")

    def encode(self, prompt):
        self.encoded.append(prompt)
        return hashlib.sha256(prompt.encode()).digest()[0] / 255

    def condition(self, control):
        return {"control": np.full(1, VOCABULARY.index(control) / 9, np.float32)}

    def queue(self, told, feed, seed):
        x0 = x0_of(told)

        def model(x, level, conditions):
            if self.broken is not None:
                error, self.broken = self.broken, None
                raise error
            return x0(x, level, conditions)

        return Queue(self.plan, self.table, model, SHAPE, feed=feed, seed=seed)

    def first(self, told, seed, base):
        s = self.schedule
        known = s.given + (s.slots if s.fill == "renoise" else 0)
        if not known:
            return None
        rng = np.random.default_rng(seed)
        return rng.normal(size=(1, SHAPE[1], known, *SHAPE[2:])).astype(np.float32)

    def decoder(self):
        return ToyDecoder(self.pictures)


def offline(model, controls, prompt, seed=0):
    """All pictures of a signal, by the queue and the decoder alone."""

    class Held:
        text = model.encode(prompt)

    def feed(frame):
        place = frame + model.schedule.given
        return Condition(place, model.condition(controls[place])) if place < len(controls) else None

    queue, decoder = model.queue(Held, feed, seed), model.decoder()
    queue.start(model.first(Held, seed, ()))
    pictures = []
    while not queue.done:
        for latent in queue.run():
            pictures += list(decoder(latent.latent[:, :, None]))
    return pictures
