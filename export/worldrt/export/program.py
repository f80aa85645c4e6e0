"""Saved torch programs: the traced graphs without their weights, for the engine's `torch` backend."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram


def save(program: ExportedProgram, path: Path) -> None:
    """Write a traced program. Its weights are on the meta device, so none is written; the reader gives them.

    The program is changed: what it makes itself is made on the CPU from now on.
    """
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            _move(module)
    program.example_inputs = None
    torch.export.save(program, path)


def _move(module: torch.fx.GraphModule) -> None:
    meta, cpu = torch.device("meta"), torch.device("cpu")
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
        else:
            node.args = tuple(cpu if arg == meta else arg for arg in node.args)
            node.kwargs = {name: cpu if arg == meta else arg for name, arg in node.kwargs.items()}
    module.recompile()
