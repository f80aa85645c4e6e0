"""A decoder in parts: the same bits, the same state when it goes on elsewhere."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.models import Models
from worldrt.runtime.parallel.pools.parts import DecodePartWorker
from worldrt.runtime.parallel.pools.stage import Stage
from worldrt.runtime.parallel.vae_parts import decoder_parts

from .pools.cluster import FakeCluster

ROWS, COLUMNS, LATENTS = 3, 4, 6
AXES = {"batch": 1, "rows": ROWS, "columns": COLUMNS}


def world(folder):
    vae = Models.open([folder]).vae("video2world")
    return SimpleNamespace(vae=vae, shape=(1, vae.spec.channels, ROWS, COLUMNS))


@pytest.fixture(scope="module")
def latents(nano_bundle):
    channels = world(nano_bundle).vae.spec.channels
    return np.random.default_rng(7).normal(size=(1, channels, LATENTS, ROWS, COLUMNS)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(nano_bundle, latents):
    return np.stack(list(world(nano_bundle).vae.decode(latents)))


def chain(cluster, folder, count):
    make = partial(world, folder)
    return [Stage(cluster, partial(DecodePartWorker, make, i, count), f"part {i}", every=2) for i in range(count)]


def decoded(stages, latents):
    """All pictures, and what crosses between the parts for the last latent."""
    pictures, crossed = [], ()
    for stage in stages:
        stage.begin()
    for i in range(latents.shape[2]):
        result = stages[0].submit("decode", latents, i)
        for stage in stages[1:]:
            crossed = result.get()
            result = stage.submit("decode", result)
        pictures.append(result.get())
    return np.concatenate(pictures), crossed


@pytest.mark.parametrize("count", [2, 3])
def test_parts_decode_the_same_bits(nano_bundle, latents, whole, count):
    made, crossed = decoded(chain(FakeCluster(), nano_bundle, count), latents)
    np.testing.assert_array_equal(made, whole)
    assert len(crossed) == 1


def test_a_part_that_is_lost_goes_on_from_its_caches(nano_bundle, latents, whole):
    seen = []
    cluster = FakeCluster(lambda count, method: method == "decode" and (seen.append(count) or len(seen) in (4, 9)))
    stages = chain(cluster, nano_bundle, 2)
    made, _ = decoded(stages, latents)
    np.testing.assert_array_equal(made, whole)
    assert sum(stage.losses for stage in stages) == 2


def test_the_work_is_shared_and_every_weight_is_in_a_part(nano_bundle, tmp_path):
    bundle = world(nano_bundle).vae.opener.bundle
    parts = decoder_parts(bundle, 2, AXES, tmp_path)
    for name in ("decode_first", "decode_next"):
        graph = bundle.manifest.vae.graphs[name]
        own = [part.spec.graphs[name] for part in parts]
        assert {w.name for w in graph.weights} == {w.name for part in own for w in part.weights}
        caches = [{s.name for s in part.outputs if s.name.startswith("cache_")} for part in own]
        assert all(caches) and not caches[0] & caches[1]
        assert caches[0] | caches[1] == {s.name for s in graph.outputs if s.name.startswith("cache_")}


def test_more_parts_than_there_are_places_is_said(nano_bundle, tmp_path):
    bundle = world(nano_bundle).vae.opener.bundle
    with pytest.raises(InputError, match="cannot be cut into 99 parts"):
        decoder_parts(bundle, 99, AXES, tmp_path)
