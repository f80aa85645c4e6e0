"""Rewrites of ONNX graphs. Weights are graph inputs while these run, so that none can touch them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

# Constants beyond this many values stay as operators that make them.
_FOLD_LIMIT = 4096


def light(model: ir.Model) -> None:
    """Inline, fold, share and drop: all that is needed for a clean graph, in time linear in its nodes."""
    common.InlinePass()(model)
    for _ in range(2):  # sharing makes new constants meet
        optimizer.fold_constants(model, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT)
        common.IdentityEliminationPass()(model)
        common.CommonSubexpressionEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=16)(model)
    common.DeduplicateInitializersPass()(model)
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    common.RemoveUnusedOpsetsPass()(model)
    common.OutputFixPass()(model)
    # exporters note stack traces, with paths of the machine
    common.ClearMetadataAndDocStringPass()(model)
    common.NameFixPass()(model)
