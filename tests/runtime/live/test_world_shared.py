"""The nano Matrix as a world whose windows several ranks share has the latents of one: on hosts, and on fake GPUs."""

from __future__ import annotations

import threading
from copy import deepcopy
from itertools import islice

import numpy as np
import pytest

from worldrt.engine import cuda as engine_cuda
from worldrt.engine.errors import InputError
from worldrt.runtime import components
from worldrt.runtime.cli import main
from worldrt.runtime.live.model import Told
from worldrt.runtime.live.world import World
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.communicators import nccl
from worldrt.runtime.parallel.host import Host
from worldrt.runtime.parallel.ranks import Ranks
from worldrt.runtime.parallel.worker import work
from worldrt.runtime.queue.conditions import Condition

from ...fakes.cuda import FakeCuda
from ...fakes.kernels import install_kernels
from ...fakes.nccl import Library
from ...fakes.nccl import World as Wires
from ..parallel.conftest import together
from .test_device import GpuTorch

TAKEN = 4
CLOSE = 1e-5  # of the largest value


class Own(threading.local):
    """The fake GPU of each rank, which is a thread."""

    cuda: FakeCuda

    def __getattr__(self, name):
        return getattr(self.cuda, name)


def latents(world):
    """The first ones of a stream, which a control and a prompt change."""
    told = Told(world.encode("a road"))

    def feed(frame):
        return Condition(frame + 1, world.condition(world.controls[0 if frame < 5 else 1]))

    queue = world.queue(told, feed, 3)
    queue.start(np.random.default_rng(0).normal(size=(1, 16, 5, 4, 6)).astype(np.float32))
    made = []
    while len(made) < TAKEN:
        made += [frame.latent for frame in queue.run()]
        if len(made) == 2:
            told.text = world.encode("a river")
    return list(islice(made, TAKEN))


def of_ranks(size, guidance, models_of, streams=1):
    """Rank 0's latents of streams, one after the other, and what each rank has seen."""

    def rank(control):
        models, seen = models_of(control)
        if not isinstance(control, Host):
            work(models, control)
            return None, seen()
        world = World(models, guidance=guidance)
        made = [latents(world) for _ in range(streams)]
        control.end_orders()
        return made, seen()

    results = together(size, rank)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results[0][0], [seen for _, seen in results]


def differences(made, expected):
    """The largest of each latent, as shares of its largest value."""
    return [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(made, expected, strict=True)]


@pytest.mark.parametrize(("form", "size", "guidance"), [("whole", 2, 2.0), ("block", 3, 2.0)])
def test_hosts_that_share_a_window(nano_matrix_bundle, nano_matrix_blocks, stubs, monkeypatch, form, size, guidance):
    """A text for each; an odd number, which share the frames of one text after the other."""
    nano = nano_matrix_bundle if form == "whole" else nano_matrix_blocks
    stubs.run_by_torch(monkeypatch, nano.modules)
    expected = latents(World(Models.open([nano.folder]), guidance=guidance))

    def models_of(control):
        return Models.open([nano.folder], ranks=Ranks(control)), lambda: None

    for made in of_ranks(size, guidance, models_of)[0]:
        assert max(differences(made, expected)) <= CLOSE, differences(made, expected)


@pytest.mark.parametrize(("size", "guidance"), [(4, 2.0), (3, 1.0)])
def test_gpus_that_share_a_window(nano_matrix_blocks, stubs, monkeypatch, size, guidance):
    """The queue stays on the first one, and steps are graphs with their collectives on all. The second stream runs on
    what the first one bound."""
    stubs.run_by_torch(monkeypatch, nano_matrix_blocks.modules)
    expected = latents(World(Models.open([nano_matrix_blocks.folder]), guidance=guidance))
    own, wires, modules = Own(), Wires(), nano_matrix_blocks.modules
    install_kernels(monkeypatch, own)
    monkeypatch.setattr(engine_cuda, "_import_runtime", lambda: own.cuda)
    monkeypatch.setattr(
        components,
        "open_session",
        lambda b, p, graph, device, **_: GpuTorch(graph, device, deepcopy(modules[graph.file]), own.cuda),
    )

    def models_of(control):
        cuda, ranks = FakeCuda(devices=8), Ranks(control)
        own.cuda = cuda
        device = f"cuda:{control.rank}"
        models = Models.open([nano_matrix_blocks.folder], device=device, cuda_graphs="on", ranks=ranks)
        ranks.take(nccl.open(control, models.execution.opened_device, Library(wires, cuda)))
        return models, lambda: (dict(cuda.calls), cuda.violations)

    streams, seen = of_ranks(size, guidance, models_of, 2)
    for made in streams:
        assert max(differences(made, expected)) <= CLOSE, differences(made, expected)
    launches = {calls["cudaGraphLaunch"] for calls, _ in seen}
    assert len(launches) == 1 and launches.pop() >= 4 and not any(violations for _, violations in seen)


def test_what_cannot_be_shared_is_refused_before_anything_is_loaded(nano_matrix, capsys):
    host = Host([])
    host.size = 2
    with pytest.raises(InputError, match="--form block"):
        World(Models.open([nano_matrix], ranks=Ranks(host)), guidance=1.0)
    for flags, said in ((["--source", "drive", "--conditions_only"], "runs no model"), (["--ray"], "--num_gpus_dit")):
        assert main(["world", "--num_gpus", "2", *flags]) == 2
        assert said in capsys.readouterr().err
