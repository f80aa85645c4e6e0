"""Steps of a bound denoiser whose blocks come to the device in turn, as CUDA graphs on a fake GPU."""

import pytest

from worldrt.engine.errors import BackendError
from worldrt.engine.graphs import StepGraphs
from worldrt.engine.session import Call
from worldrt.runtime.bound import BoundDenoiser

from ..engine.test_prefetch import BLOCK_BYTES, Chain


def bound_of(chain):
    calls = tuple(Call({}, run) for run in chain.calls)
    graphs = StepGraphs(chain.device, mode="on")
    return BoundDenoiser(chain.device, 1, {}, (), calls, chain.y, None, blocks=chain.weights, graphs=graphs)


def captured(blocks, room):
    """A chain whose step has been captured."""
    chain = Chain(blocks, room)
    bound = bound_of(chain)
    for _ in range(3):
        bound.step("key", bound.run)
        chain.check()
    assert chain.runtime.calls["cudaGraphLaunch"] == 2
    return chain, bound


def test_a_graph_from_before_a_release_is_not_launched():
    chain, bound = captured(5, 2)
    chain.weights.release()
    chain.device.limit_bytes += 2 * BLOCK_BYTES
    chain.weights.settle()
    with pytest.raises(BackendError, match="have left the device since"):
        bound.step("key", bound.run)
    assert chain.runtime.calls["cudaGraphLaunch"] == 2


def test_a_graph_after_a_run_that_failed_finds_its_weights():
    chain, bound = captured(5, 2)
    chain.calls = [*chain.calls[:3], lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        chain.body()
    chain.expected = chain.device.download(chain.y)[0]
    chain.calls = [call.run for call in bound.calls]
    bound.step("key", bound.run)
    chain.check()
    assert chain.runtime.calls["cudaGraphLaunch"] == 3
