"""Films on a fake GPU with little memory: what decodes makes room for what samples, between chunks too."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.runtime.engines import Engines
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.video2world import Video2World
from worldrt.runtime.request import Request

from ..fakes.cuda import FakeCuda
from ..fakes.trt import FakeTrt, install

FILM = Request("a red car", steps=1, num_frames=17, num_chunks=3, num_overlap_frames=5)


class Watched(Observer):
    """Notes which models are loaded when a chunk has been sampled."""

    def __init__(self, models):
        super().__init__()
        self.models, self.seen = models, []

    def progress(self, stage, done, total):
        if stage.endswith("sampling") and done == total:
            self.seen.append({key[0] for key, model in self.models._kept.items() if model.loaded})


@pytest.fixture
def film(nano_bundle, monkeypatch, tmp_path):
    def make(total_bytes=1 << 34, **execution):
        install(monkeypatch, cuda := FakeCuda(total_bytes=total_bytes), FakeTrt(cuda))
        models = Models.open([nano_bundle], backend="tensorrt", device="cuda", engines=Engines(tmp_path), **execution)
        watched = Watched(models)
        picture = np.random.default_rng(0).integers(0, 256, (80, 128, 3), np.uint8)
        return np.stack(list(Video2World(models)(FILM, picture, watched))), watched.seen, cuda.peak_bytes

    return make


@pytest.mark.parametrize("share", [0.9, 0.8, 0.75])
def test_a_film_where_memory_is_short(film, share):
    """The same film where what decodes has no place beside what samples: its caches wait on the host meanwhile."""
    whole, seen, needed = film()
    assert len(whole) == 41 and seen == [{"text", "denoiser", "vae"}] * 3
    frames, _, peak = film(int(needed * share))
    assert np.array_equal(frames, whole) and peak <= needed * share


def test_a_film_with_one_model_at_a_time(film):
    frames, seen, peak = film(offload=True)
    whole, _, needed = film()
    assert np.array_equal(frames, whole) and seen == [{"denoiser"}] * 3 and peak < needed
