"""Gathers inside engines are used where they give what those between engines give, and only there."""

from __future__ import annotations

import logging
from copy import deepcopy

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.engine.plans import Range
from worldrt.engine.weights import open_weights
from worldrt.runtime import components
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.engines import Engines
from worldrt.runtime.parallel.communicators.gloo import Gloo
from worldrt.runtime.parallel.modes import shared_denoiser
from worldrt.runtime.parallel.ranks import Ranks

from .clips import of_ranks, one_rank


@pytest.fixture
def engines(stubs, tmp_path, monkeypatch):
    """The tiny denoiser on a library whose engines gather: torch modules, and gloo in the place of NCCL. `how` says
    what becomes of gathers, `opened` lists the sessions that have some."""
    bundle, sources = stubs.denoiser_bundle(tmp_path / "tiny", *stubs.tiny_weights(3), "block", False)
    modules = {file: source.module for file, source in sources.items()}
    known, how, opened = {}, {"gathers": "right"}, []

    class Gathering(stubs.torch_session):
        def __init__(self, graph, device, module, gather, communicator):
            super().__init__(graph, device, module)
            self.gather, self.comm = gather, known[communicator]

        def _prepare(self, buffers):
            (name,) = self.gather.outputs
            every = buffers[name]
            assert every.shape[0] % self.gather.ranks == 0
            own = self.device.empty((every.shape[0] // self.gather.ranks, *every.shape[1:]), every.dtype)
            alone = super()._prepare({**buffers, name: own})
            gathered = self.comm.all_gather(every, own)

            def run():
                alone()
                if how["gathers"] == "right":
                    gathered()

            return run

    def open_session(backend, path, graph, device, *, options, **_):
        assert backend == "tensorrt"
        module = deepcopy(modules[graph.file])
        if "gather" not in options:
            return stubs.torch_session(graph, device, module)
        opened.append(graph.file)
        return Gathering(graph, device, module, options["gather"], options["communicator"])

    def pointer(self):
        return known.setdefault(id(self), self) and id(self)

    monkeypatch.setattr(components, "open_session", open_session)
    monkeypatch.setattr(Gloo, "pointer", property(pointer))
    execution = Execution(backend="tensorrt", engines=Engines(block_weights="inputs"))
    return Opener(bundle, execution), how, opened


def differences(all_well, opener, frames):
    single = one_rank(opener)
    for made, _ in of_ranks(all_well, opener, 2, [(count, 7.0) for count in frames], cfg=1, mode="native"):
        for count, latents in zip(frames, made, strict=True):
            expected = single(count, 7.0)
            yield np.abs(latents - expected).max() / np.abs(expected).max()


def test_engines_gather_themselves_where_frames_divide(all_well, engines, caplog):
    opener, _, opened = engines
    assert max(differences(all_well, opener, (4, 2, 3))) <= 1e-5
    assert sorted(opened) == ["block.onnx"] * 2 + ["embed.onnx"] * 2  # opened once on each rank
    assert not caplog.records


def test_a_gather_that_is_left_out_is_found_before_it_matters(all_well, engines, caplog):
    opener, how, opened = engines
    how["gathers"] = "left out"
    with caplog.at_level(logging.WARNING):
        assert max(differences(all_well, opener, (4, 2))) <= 1e-5
    assert len(opened) == 4
    assert len(caplog.records) == 2  # one of each rank, once
    assert "x0 differs by" in caplog.text and "gathered between engines" in caplog.text


def test_without_a_communicator_for_engines_they_do_not_gather(all_well, engines, caplog, monkeypatch):
    monkeypatch.setattr(Gloo, "pointer", None)
    with caplog.at_level(logging.WARNING):
        assert max(differences(all_well, engines[0], (2,))) <= 1e-5
    assert "pip install nccl4py" in caplog.text


@pytest.mark.parametrize(
    ("backend", "reason"),
    [("onnxruntime", "ONNX Runtime knows nothing of other processes"), ("tensorrt_rtx", "is made for one GPU")],
)
def test_backends_that_cannot_are_refused_with_the_reason(ranks, engines, backend, reason):
    bundle = engines[0].bundle

    def work(control):
        opener = Opener(bundle, Execution(backend=backend))
        shared_denoiser(opener, bundle.manifest.denoisers["task"], Ranks(control, mode="native"))

    for error in ranks(2, work):
        assert isinstance(error, InputError)
        assert reason in str(error) and "--backend tensorrt" in str(error)


def test_engines_for_more_ranks_than_frames_take_pieces_of_frames(stubs, tmp_path):
    bundle, _ = stubs.denoiser_bundle(tmp_path / "tiny", *stubs.tiny_weights(3), "block", False)
    component = bundle.manifest.denoisers["task"]  # of 5 latent frames, 5 to 6 rows of 6 to 8 tokens

    def ranges(ranks, graph="block", **profile):
        store = open_weights(bundle, component)
        found, _ = Engines(profile=profile).options(
            bundle, component, graph, store, batch=2, block=None, limit_bytes=None, ranks=ranks
        )
        return found

    assert ranges(5) == ranges(1) and ranges(1)["tokens"].min == 36
    for ranks in (6, 9):  # one plan for all
        assert ranges(ranks)["tokens"] == Range(6, 40, 48)
        assert ranges(ranks)["frames"] == ranges(ranks)["context_frames"] == Range(1, 5, 128)
        assert ranges(ranks, "embed")["rows"] == Range(1, 5, 6)
    assert ranges(9, frames=Range(1, 2, 3))["frames"] == Range(1, 2, 3)
