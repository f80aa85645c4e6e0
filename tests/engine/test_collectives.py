"""Gathers inside engines: what is asked of the library, whichever module that is."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest

from worldrt.engine.bundle import Graph
from worldrt.engine.collectives import add_gathers, allow_gathers, connect
from worldrt.engine.errors import UnsupportedError
from worldrt.engine.plans import BuildJob, Gather, Target
from worldrt.engine.tensors import TensorSpec

OUT = TensorSpec("next_kv", "float32", ("frames", 4))
GRAPH = Graph("block.onnx", "", (TensorSpec("x", "float32", ("frames", 4)),), (OUT,), "external", ())
JOB = BuildJob("tensorrt", GRAPH, Path("block.onnx"), Path(), "float32", {}, Target(("9.0",)))
GATHERING = replace(JOB, gather=Gather(4, ("next_kv",)))
Operation = Enum("CollectiveOperation", "ALL_REDUCE ALL_GATHER")
Reduce = Enum("ReduceOperation", "NONE SUM")


class Layer:
    """Its output takes its size from `num_ranks`, which must be known by then."""

    def __init__(self, tensor):
        self.tensor, self.num_ranks = tensor, 1

    def get_output(self, index):
        assert index == 0
        return SimpleNamespace(name="unnamed", sources=(self.tensor, self.num_ranks))


class Network:
    """What a library keeps of a network, as far as outputs go."""

    def __init__(self, refuses=False):
        self.outputs = [SimpleNamespace(name=name) for name in ("next_hidden", "next_kv")]
        self.calls, self.refuses = [], refuses

    @property
    def num_outputs(self):
        return len(self.outputs)

    def get_output(self, index):
        return self.outputs[index]

    def add_dist_collective(self, tensor, operation, reduce, root, groups):
        self.calls.append((tensor.name, operation, reduce, root, groups))
        return None if self.refuses else Layer(tensor)

    def unmark_output(self, tensor):
        self.outputs.remove(tensor)

    def mark_output(self, tensor):
        assert tensor.name not in [other.name for other in self.outputs]
        self.outputs.append(tensor)


TRT = SimpleNamespace(CollectiveOperation=Operation, ReduceOperation=Reduce, __version__="11.4")


def test_an_output_is_gathered_under_its_own_name():
    network = Network()
    own = network.outputs[1]
    add_gathers(TRT, network, GATHERING)
    assert network.calls == [("next_kv", Operation.ALL_GATHER, Reduce.NONE, -1, [])]
    assert [tensor.name for tensor in network.outputs] == ["next_hidden", "next_kv"]
    assert network.outputs[1].sources == (own, 4) and own.name == "own next_kv"


def test_what_gathers_nothing_asks_for_nothing():
    network = Network()
    add_gathers(SimpleNamespace(), network, JOB)
    assert not network.calls and len(network.outputs) == 2


def test_a_library_without_collectives_is_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match=r"tensorrt 10\.9 has no collectives .* before 10\.16; leave --cp_mode"):
        add_gathers(SimpleNamespace(__version__="10.9"), SimpleNamespace(num_outputs=0), GATHERING)
    with pytest.raises(UnsupportedError, match="it refuses to gather 'next_kv'"):
        add_gathers(TRT, Network(refuses=True), GATHERING)


def test_what_was_a_preview_is_switched_on_where_it_still_is_one():
    switched = []
    config = SimpleNamespace(set_preview_feature=lambda *feature: switched.append(feature))
    first = SimpleNamespace(PreviewFeature=SimpleNamespace(MULTIDEVICE_RUNTIME_10_16="multi-device"))
    for trt, job in ((first, JOB), (TRT, GATHERING), (first, GATHERING)):
        allow_gathers(trt, config, job)
    assert switched == [("multi-device", True)]


def test_a_context_is_given_the_communicator_that_lies_at_an_address():
    found = []

    def set_communicator(capsule):
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        found.append(pointer(capsule, b"ncclComm_t"))
        return len(found) == 1

    context = SimpleNamespace(set_communicator=set_communicator)
    assert connect(context, 0x5EED) and not connect(context, 0x5EED)
    assert found == [0x5EED, 0x5EED]


@pytest.mark.tensorrt
def test_a_real_module_takes_the_gather():
    """TensorRT-RTX has the names of TensorRT, though its engines run on one GPU."""
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    x = network.add_input("x", trt.float32, (3, 4))
    own = network.add_elementwise(x, x, trt.ElementWiseOperation.SUM).get_output(0)
    own.name = "next_kv"
    network.mark_output(own)
    add_gathers(trt, network, GATHERING)
    assert network.num_outputs == 1 and network.get_output(0).name == "next_kv"
    assert tuple(network.get_output(0).shape) == (12, 4)
