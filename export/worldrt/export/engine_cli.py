"""What `trt-export` says of engines: a progress bar, a table, or JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import load_bundle
from worldrt.engine.cache import PlanCache
from worldrt.engine.cache_folder import LIMIT_VARIABLE
from worldrt.engine.plans import BuildOptions
from worldrt.engine.profiles import overrides_of
from worldrt.engine.schema import encode
from worldrt.export.engines import Built, EngineOptions, Progress, Unsupported, build_engines, check_engines

_GB = 1e9


def run(folder: Path, args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Build or check as the flags say. Prints a table unless JSON is wanted; gives the JSON and the exit code, which is
    1 where a check has found something."""
    options = _options(args)
    bundle = load_bundle(folder, args.checkpoint if args.bundle is not None else None)
    with _progress(quiet=args.json) as progress:
        if args.check:
            found = check_engines(bundle, options, progress)
        else:
            cache = PlanCache(args.plan_cache)
            built = build_engines(bundle, options, cache, progress)
    if args.check:
        if not args.json:
            _print_findings(found, options.backend)
        return {"unsupported": [{"graph": f.file, **encode(f.finding)} for f in found]}, int(bool(found))
    if not args.json:
        _print_table(built)
    gone = [row for row in built if not row.plan.exists()]
    if gone:
        print(
            f"warning: {len(gone)} of these plans had to go again: together they are larger than the "
            f"{cache.limit_bytes / 1e9:g} GB that the cache may hold; set ${LIMIT_VARIABLE}",
            file=sys.stderr,
        )
    return {"engines": [_as_json(row) for row in built]}, 0


def _options(args: argparse.Namespace) -> EngineOptions:
    build = BuildOptions(
        optimization_level=args.optimization_level,
        workspace_bytes=None if args.workspace_gb is None else int(args.workspace_gb * _GB),
        version_compatible=args.version_compatible,
        hardware_compatible=args.hardware_compatible,
        refit=args.refit,
        strip=args.strip_plan,
        weight_streaming=args.weight_streaming,
    )
    return EngineOptions(
        args.backend or "tensorrt_rtx",
        tuple(args.compute_capability),
        args.device,
        tuple(args.components),
        overrides_of(args.profile),
        args.batch,
        args.block_weights,
        build,
    )


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """A bar on the terminal, with an estimate."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        line = bar.add_task("reading the bundle", total=None)
        yield lambda text, done, total: bar.update(line, description=text, completed=done, total=total)


def _print_table(rows: Sequence[Built]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("graph", "form", "for", box=None, pad_edge=False)
    for heading in ("plan", "seconds", "memory"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        report = row.report
        memory = "" if row.hit else f"{report.peak_rss_bytes / 1e6:.0f} MB"
        where = row.target.gpu_name or ", ".join(row.target.compute_capabilities)
        size, state = f"{report.plan_bytes / 1e6:.1f} MB", "from the cache" if row.hit else "built"
        table.add_row(row.graph, row.form, where, size, f"{row.seconds:.2f}", memory, state)
    console = Console(markup=False)
    console.print(table)
    for text in dict.fromkeys(f"{row.graph}: {text}" for row in rows for text in row.report.warnings):
        print(f"warning: {text}", file=sys.stderr)
    if rows:
        size_mb = sum({row.digest: row.report.plan_bytes for row in rows}.values()) / 1e6
        seconds = sum(row.seconds for row in rows)
        text = f"{len(rows)} plans, {size_mb:.1f} MB, in {seconds:.1f} s: {rows[0].plan.parent}"
        console.print(text, highlight=False, soft_wrap=True)


def _print_findings(found: Sequence[Unsupported], library: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    if not found:
        console.print(f"{library} takes every node of every graph", highlight=False)
        return
    table = Table("graph", "node", "operator", "reason", box=None, pad_edge=False)
    for row in found:
        table.add_row(row.file, row.finding.node, row.finding.operator, row.finding.reason)
    console.print(table)


def _as_json(row: Built) -> dict[str, Any]:
    return {
        "graph": row.graph,
        "form": row.form,
        "for": row.target.gpu_name or ", ".join(row.target.compute_capabilities),
        "plan": str(row.plan),
        "digest": row.digest,
        "plan_bytes": row.report.plan_bytes,
        "seconds": round(row.seconds, 3),
        "hit": row.hit,
        "build": encode(row.report),
    }
