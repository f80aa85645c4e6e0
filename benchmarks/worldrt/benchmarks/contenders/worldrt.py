"""The runtime on a bundle."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from worldrt.benchmarks.contenders.base import Workload
from worldrt.engine.device import host_buffer
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.text2world import Text2World
from worldrt.runtime.request import Request


class Runtime:
    """Euler steps over the same sigmas as the other contenders, so that all evaluate the transformer equally often."""

    def __init__(self, workload: Workload, models: Models) -> None:
        self.workload = workload
        self.world = Text2World(models)

    def round(self, index: int) -> dict[str, Any]:
        observer, start = Observer(), time.perf_counter()
        count = sum(1 for _ in self.world(self._request(index), observer))
        whole = time.perf_counter() - start
        spent, steps = observer.timings.seconds, self.workload.steps
        seconds = {
            "text": sum(s for name, s in spent.items() if name.endswith(": text")),
            "image step": spent["text2image: sampling"] / steps,
            "video step": spent["video2world: sampling"] / steps,
            "encode": spent["video2world: encode"],
            "decode": sum(s for name, s in spent.items() if name.endswith(": decode")),
            "whole": whole,
        }
        return {"seconds": seconds, "frames": count}

    def frames(self, index: int, path: str) -> dict[str, Any]:
        frames = np.stack(list(self.world(self._request(index))))
        np.savez(path, frames=frames)
        return {"shape": frames.shape}

    def denoise(self, task: str, given: str, path: str) -> dict[str, Any]:
        model = self.world.models.denoiser(task)
        session = model.sessions["denoise"]
        arrays = dict(np.load(given))
        arrays["position"] = np.arange(arrays["x"].shape[2], dtype=np.float32)
        taken = {spec.name for spec in session.graph.inputs}
        buffers = {name: host_buffer(array) for name, array in arrays.items() if name in taken}
        call = session.bind({}, {**buffers, **model.weights("denoise")})
        call.run()
        np.savez(path, x0=call["x0"].numpy())
        return {}

    def _request(self, index: int) -> Request:
        load = self.workload
        prompt, negative = load.prompt(index)
        return Request(
            prompt=prompt,
            negative_prompt=negative,
            seed=index,
            steps=load.steps,
            guidance=load.video_guidance,
            sampler="rectified_flow_euler",
            sigma_max=load.sigma_max,
            sigma_min=load.sigma_min,
            num_frames=load.num_frames,
            width=load.video_size[0],
            height=load.video_size[1],
        )


def open(workload: dict[str, Any], bundle: str, backend: str, options: dict[str, Any]) -> Runtime:
    """Read the bundle; graphs are loaded in the warm-up round. `options` are the backend's own."""
    return Runtime(Workload(**workload), Models.open([bundle], backend=backend, options=options))
