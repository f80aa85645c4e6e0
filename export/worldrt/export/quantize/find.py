"""What can be quantised in a graph: linear layers, and the attentions between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_ON_THE_WAY = ("Transpose", "Reshape", "Cast")


@dataclass(frozen=True)
class Linear:
    """x @ transpose(weight): the weight (out, in) as it lies in the checkpoint, and the nodes up to the product."""

    weight: ir.Value
    matmul: ir.Node
    between: tuple[ir.Node, ...]

    @property
    def name(self) -> str:
        return self.weight.name or ""

    @property
    def block(self) -> int | None:
        """The number of its block, None outside of the blocks."""
        found = BLOCK.search(self.name)
        return None if found is None else int(found.group(1))


def linears(graph: ir.Graph, names: Sequence[str]) -> Iterator[Linear]:
    """Weights that are used once, by [Cast,] Transpose and MatMul."""
    weights = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    for name in names:
        if name not in weights:
            continue
        value = weights[name]
        between: list[ir.Node] = []
        while (node := only_user(value)) is not None and node.op_type in ("Cast", "Transpose"):
            between.append(node)
            value = node.outputs[0]
        transposed = [step.op_type for step in between].count("Transpose") == 1
        if node is not None and node.op_type == "MatMul" and node.inputs[1] is value and transposed:
            yield Linear(weights[name], node, tuple(between))


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that takes a value, or None where several do."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 else None


def attentions(found: Sequence[Linear]) -> Iterator[ir.Node]:
    """The Attention nodes whose result goes into one of these layers, with nothing but a change of shape between."""
    for linear in found:
        value = linear.matmul.inputs[0]
        node = None if value is None else value.producer()
        while node is not None and node.op_type in _ON_THE_WAY:
            value = node.inputs[0]
            node = None if value is None else value.producer()
        if node is not None and node.op_type == "Attention":
            yield node


def block_outputs(graph: ir.Graph, names: Sequence[str]) -> dict[str, ir.Value]:
    """What each block adds up to, by its number: the first sum behind its last linear layer."""
    order = {id(node): index for index, node in enumerate(graph)}
    last: dict[int, Linear] = {}
    for linear in linears(graph, names):
        number = linear.block
        if number is not None and (number not in last or order[id(last[number].matmul)] < order[id(linear.matmul)]):
            last[number] = linear
    return {str(number): _sum_behind(last[number].matmul.outputs[0]) for number in sorted(last)}


def _sum_behind(value: ir.Value) -> ir.Value:
    while (node := only_user(value)) is not None:
        value = node.outputs[0]
        if node.op_type == "Add":
            break
    return value
