"""Which models are loaded at a time, on a fake GPU with little memory."""

from __future__ import annotations

import pytest

from worldrt.engine.errors import DeviceMemoryError
from worldrt.runtime.engines import Engines
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Observer
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.request import Request
from worldrt.runtime.staging import again_with_room

from ..fakes.cuda import FakeCuda
from ..fakes.trt import FakeTrt, install

REQUEST = Request(prompt="a red car", steps=2, width=128, height=80)


class Watched(Observer):
    """Notes which models are loaded, and the most memory held, when sampling ends."""

    def __init__(self, models, cuda):
        super().__init__()
        self.models, self.cuda, self.seen, self.built = models, cuda, {}, []

    def progress(self, stage, done, total):
        if stage.startswith("build"):
            self.built.append((stage, done))
        elif stage.endswith("sampling") and done == total:
            self.seen, self.sampling_bytes = self.loaded(), self.cuda.peak_bytes

    def loaded(self):
        return {key[0] for key, model in self.models._kept.items() if model.loaded}


@pytest.fixture
def draw(nano_bundle, monkeypatch, tmp_path):
    def make(total_bytes=1 << 34, **execution):
        install(monkeypatch, cuda := FakeCuda(total_bytes=total_bytes), FakeTrt(cuda))
        models = Models.open([nano_bundle], backend="tensorrt", device="cuda", engines=Engines(tmp_path), **execution)
        watched = Watched(models, cuda)
        picture = Text2Image(models)(REQUEST, watched)
        return watched, picture

    return make


def test_all_models_stay_where_there_is_room_for_them(draw):
    watched, _ = draw()
    assert watched.seen == {"text", "denoiser", "vae"}


def test_offload_keeps_one_at_a_time(draw):
    watched, picture = draw(offload=True)
    assert watched.seen == {"denoiser"}
    assert watched.loaded() == {"vae"}
    assert (picture == draw()[1]).all()


def test_models_make_room_for_each_other_where_memory_is_short(draw):
    """GPUs that are too small for the decoding beside the denoiser; for the decoder beside its sampling; and for the
    text encoder beside it too."""
    watched, picture = draw()
    for total_bytes, sampling in (
        (watched.cuda.peak_bytes - 1000, {"text", "denoiser", "vae"}),
        (watched.sampling_bytes - 1000, {"text", "denoiser"}),
        (watched.sampling_bytes - 4_500_000, {"denoiser"}),
    ):
        small, same = draw(total_bytes=total_bytes)
        assert small.seen == sampling and small.loaded() == {"vae"}
        assert (same == picture).all()


def test_a_gpu_that_is_too_small_for_one_model(draw):
    with pytest.raises(DeviceMemoryError, match="loading text2image/denoise: cuda:0: out of memory"):
        draw(total_bytes=15_000_000)


def test_closed_models_hold_nothing_but_scratch(draw):
    watched, _ = draw(cuda_graphs="on")
    device = watched.models.execution.opened_device
    watched.models.close()
    assert watched.cuda.used_bytes == device.scratch.nbytes == device.held_bytes
    device.scratch.drop()
    assert watched.cuda.used_bytes == 0


def test_a_build_is_told_of(draw):
    watched, _ = draw()
    assert ("build text/encode", 50) in watched.built and ("build text2image/denoise", 50) in watched.built


def test_a_second_try_is_made_only_where_there_is_room_to_be_had():
    tries = []

    def make():
        tries.append(len(tries))
        if len(tries) == 1:
            raise DeviceMemoryError("short")
        return "made"

    assert again_with_room(make, lambda: True) == "made"
    tries.clear()
    with pytest.raises(DeviceMemoryError, match="short"):
        again_with_room(make, lambda: False)
    assert len(tries) == 1
