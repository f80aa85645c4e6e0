"""`trt-run inspect`: what a bundle holds, whether its weights fit, whether its graphs load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import Bundle, Component, Denoiser, Graph, load_bundle
from worldrt.engine.device import open_device
from worldrt.engine.errors import BundleError, UnsupportedError, WorldrtError
from worldrt.engine.schema import encode
from worldrt.engine.session import open_session
from worldrt.engine.weights import open_weights


def inspect(folder: Path, checkpoint: str | None, *, full: bool, as_json: bool) -> int:
    """Print a bundle. Raises `BundleError` where it is damaged, after printing what could be read."""
    bundle = load_bundle(folder, checkpoint)
    components = {name: _component(bundle, component, full) for name, component in bundle.manifest.components().items()}
    report = {
        "bundle": str(folder),
        "family": bundle.manifest.family,
        "variant": bundle.manifest.variant,
        "producer": dict(bundle.manifest.producer),
        "weight_root": str(bundle.weight_root),
        "components": components,
    }
    print(json.dumps(report, indent=1)) if as_json else _print(report)
    for name, facts in components.items():
        problems = [facts["weights"]["problem"], *(graph["problem"] for graph in facts["graphs"].values())]
        for problem in filter(None, problems):
            raise BundleError(f"{name}: {problem}")
    return 0


def _component(bundle: Bundle, component: Component, full: bool) -> dict[str, Any]:
    recorded = bundle.manifest.weights.files
    size = sum(recorded[file].size_bytes for file in component.files if file in recorded)
    problem = _problem(lambda: open_weights(bundle, component, full=full))
    graphs = {name: _graph(bundle, graph, load=problem is None) for name, graph in component.graphs.items()}
    quantized = component if isinstance(component, Denoiser) else None
    return {
        "precision": component.precision,
        "quantization": quantized and quantized.quantization,
        "quality": encode(quantized.quality) if quantized and quantized.quality else None,
        "weights": {"files": list(component.files), "size_bytes": size, "problem": problem, "hashed": full},
        "graphs": graphs,
    }


def _graph(bundle: Bundle, graph: Graph, *, load: bool) -> dict[str, Any]:
    path = bundle.path(graph.file)
    problem, state = None, "not tried"
    if load:
        problem, state = _loads(bundle, graph)
    return {
        "file": graph.file,
        "size_bytes": path.stat().st_size,
        "sha256": graph.sha256,
        "inputs": encode(graph.inputs),
        "outputs": encode(graph.outputs),
        "weights": len(graph.weights),
        "weights_as": graph.weights_as,
        "state": state,
        "problem": problem,
        "described": {
            "inputs": [spec.describe() for spec in graph.inputs],
            "outputs": [spec.describe() for spec in graph.outputs],
        },
    }


def _loads(bundle: Bundle, graph: Graph) -> tuple[str | None, str]:
    """What is wrong with the graph, and in a word whether it loads. One for a GPU may be sound and not run here.

    Weights stay in the mapped files, so a graph of any size loads in seconds and little memory.
    """
    try:
        open_session(
            "onnxruntime",
            bundle.path(graph.file),
            graph,
            open_device("cpu"),
            weight_root=bundle.weight_root,
            options={"low_memory": True},
        )
    except UnsupportedError:
        return None, "sound, not for a CPU"
    except WorldrtError as error:
        return str(error), "no"
    return None, "yes"


def _problem(check: Any) -> str | None:
    try:
        check()
    except WorldrtError as error:
        return str(error)
    return None


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(report['family'])} {escape(report['variant'])}[/bold] in {escape(report['bundle'])}")
    console.print(f"weights in {escape(report['weight_root'])}")
    table = Table("component", "graph", "size", "precision", "weights", "loads")
    for name, facts in report["components"].items():
        weights = facts["weights"]
        state = weights["problem"] or ("fit, hashed" if weights["hashed"] else "fit")
        precision = " ".join(filter(None, (facts["precision"], facts["quantization"])))
        table.add_row(name, "", "", precision, f"{_size(weights['size_bytes'])}, {escape(state)}", "")
        for graph_name, graph in facts["graphs"].items():
            held = f"{graph['weights']} tensors, {graph['weights_as']}"
            table.add_row("", graph_name, _size(graph["size_bytes"]), "", held, graph["state"])
        table.add_section()
    console.print(table)
    for name, facts in report["components"].items():
        if facts["quality"]:
            console.print(f"{name}: {_quality(facts['quantization'], facts['quality'])}")
    for name, facts in report["components"].items():
        for graph_name, graph in facts["graphs"].items():
            console.print(f"[bold]{name} {graph_name}[/bold]")
            for arrow, side in (("<-", "inputs"), ("->", "outputs")):
                console.print(
                    escape("\n".join(f"  {arrow} {line}" for line in _without_caches(graph["described"][side])))
                )


def _quality(kind: str, quality: dict[str, Any]) -> str:
    """What quantisation does, with the limits that it was held to."""
    worst, limit = max(step["error"] for step in quality["steps"]), quality["step_limit"]
    blocks = ", ".join(f"{number} {error:.2%}" for number, error in quality["blocks"].items())
    frames = f"{quality['psnr_db']:.1f} dB" if "psnr_db" in quality else "not measured"
    return (
        f"{kind}, {quality['calibration']}; x0 off by at most {worst:.2%} (limit {limit:.2%}), "
        f"frames {frames} (limit {quality['psnr_limit_db']:.1f} dB), blocks: {blocks}"
    )


def _without_caches(lines: list[str]) -> list[str]:
    """Caches in one line: there are dozens, and no one but the runtime binds them."""
    caches = [line for line in lines if line.startswith("cache_")]
    rest = [line for line in lines if line not in caches]
    return [*rest, f"{caches[0].split()[0]} to {caches[-1].split()[0]}"] if caches else rest


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"
