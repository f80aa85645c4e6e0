"""Pools on a cluster of Ray on this machine: workers are killed, pictures stay."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest

from worldrt.engine.errors import BackendError, InputError
from worldrt.export.plan import Options
from worldrt.export.run import export_bundle
from worldrt.runtime.live.controls import random_signal
from worldrt.runtime.parallel import ray_cluster
from worldrt.runtime.parallel.pools.group import Groups
from worldrt.runtime.parallel.ray_cluster import loopback, open_cluster

from ....conftest import shared_folder
from ...live.worlds import offline
from .mortal import PROMPT, follow, kill, lead, matrix, nano, pictures, pooled, toy

with_ray = pytest.mark.slow  # starting Ray takes longer than all that it is tested for; `make soak` installs it


@pytest.fixture(scope="module")
def cluster():
    with open_cluster(4, memory_bytes=100 << 20) as opened:
        yield opened


@with_ray
def test_workers_are_killed_and_every_frame_is_there_once(cluster):
    controls = random_signal(toy().schedule.given + toy().schedule.slots + 30, 5)
    with pooled(cluster, toy, window=3) as world:
        victims = {20: world.denoise, 50: world.decode[0], 80: world.denoise}
        made = pictures(world, controls, lambda index: kill(victims[index]) if index in victims else None)
        assert world.denoise.losses == 2 and world.decode[0].losses == 1
    np.testing.assert_array_equal(made, offline(toy(), controls, PROMPT))


@with_ray
def test_a_causal_decoder_in_parts_is_killed_and_goes_on_from_its_caches(cluster, nano_bundle):
    make = partial(nano, nano_bundle)
    controls = ["N"] * (make().schedule.given + make().schedule.slots + 12)
    expected = pictures(make(), controls)
    with pooled(cluster, make, parts=2, window=2, every=3) as world:
        victims = {9: world.decode[0], 21: world.decode[1], 30: world.denoise}
        made = pictures(world, controls, lambda index: kill(victims[index]) if index in victims else None)
        assert [stage.losses for stage in (world.denoise, *world.decode)] == [1, 1, 1]
    np.testing.assert_array_equal(made, expected)


@pytest.fixture(scope="session")
def matrix_blocks(tmp_path_factory):
    """The nano Matrix in blocks, exported."""
    folder = shared_folder(tmp_path_factory) / "nano-matrix-block"
    if not folder.exists():
        options = Options("nano-matrix", form="block")
        export_bundle(options, folder, family="matrix", verified=False, torch_program=False)
    return folder


@with_ray
def test_a_group_that_shares_the_transformer_is_lost_as_one_and_another_goes_on(cluster, matrix_blocks):
    make = partial(matrix, matrix_blocks)
    controls = random_signal(make().schedule.given + make().schedule.slots + 8, 5)
    expected = pictures(make(), controls)
    groups = Groups(cluster, 2, partial(follow, matrix_blocks), loopback, limit_s=60.0)
    with pooled(cluster, make, first=partial(lead, matrix_blocks), groups=groups, window=2, every=3) as world:
        victims = {9: 1, 21: 0}

        def at(index):
            if index in victims:
                os.kill(world.denoise.ask("pids")[victims[index]], signal.SIGKILL)

        made = pictures(world, controls, at)
        assert world.denoise.losses >= 2
    np.testing.assert_array_equal(made, expected)


def test_without_ray_the_command_that_installs_it_is_said(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(ray_cluster.importlib, "import_module", missing)
    with pytest.raises(BackendError, match=r"pip install 'worldrt\[ray\]'"), open_cluster(1):
        pass


def refused():
    raise InputError("no such model")


def test_what_a_worker_cannot_make_is_said_by_its_calls(tmp_path):
    for make, folder, said in ((refused, ".", "no such model"), (toy, str(tmp_path / "none"), "all machines need")):
        with pytest.raises(InputError, match=said):
            ray_cluster._Host(make, folder).call("load")


@with_ray
def test_a_cluster_that_is_too_small_is_said(cluster):
    with pytest.raises(InputError, match="2 workers want 2 GPUs, and the cluster has"), open_cluster(2, gpus=1):
        pass
    with pytest.raises(InputError, match="4096 workers want 4096 CPUs"), open_cluster(4096):
        pass


@with_ray
def test_a_second_cluster_in_one_process_is_refused(cluster):
    with pytest.raises(BackendError, match="connected to another cluster"), open_cluster(1, address="127.0.0.1:1"):
        pass
