"""`trt-export cache`: look at the kept engine plans, remove them, check them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldrt.engine.cache import PlanCache
from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.engine.record import Entry
from worldrt.engine.schema import encode

_DAY_S = 86400.0


def build_parser() -> Parser:
    """The flags of `trt-export cache`."""
    parser = Parser(prog="trt-export cache", description="Engine plans that were built before, and are taken again.")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    show = commands.add_parser("ls", help="list the plans, the one used last first")
    remove = commands.add_parser("rm", help="remove plans")
    remove.add_argument("digests", nargs="*", metavar="DIGEST", help="the first 6 or more digits of a plan's digest")
    remove.add_argument("--all", action="store_true", help="remove every plan")
    remove.add_argument("--older_than", type=float, metavar="DAYS", help="remove plans that were not used for so long")
    verify = commands.add_parser("verify", help="read all plans whole and compare them with their records")
    verify.add_argument("--remove", action="store_true", help="remove the damaged ones")
    for command in (show, remove, verify):
        command.add_argument("--plan_cache", type=Path, metavar="DIR", help="default: $WORLDRT_PLAN_CACHE, or ~/.cache")
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: Sequence[str]) -> int:
    """The exit code is 0, or 1 where plans are damaged or could not be removed."""
    args = build_parser().parse_args(argv)
    cache = PlanCache(args.plan_cache)
    if args.verb == "ls":
        return _ls(cache, as_json=args.json)
    if args.verb == "verify":
        return _verify(cache, remove=args.remove, as_json=args.json)
    return _rm(cache, _chosen(cache, args.digests, args.all, args.older_than), as_json=args.json)


def _ls(cache: PlanCache, *, as_json: bool) -> int:
    entries = cache.entries()
    if as_json:
        print(json.dumps([_as_json(entry) for entry in entries], indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in ("digest", "graph", "type", "library", "GPU", "size", "used"):
        right = heading in ("size", "used")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "GPU", overflow="fold")
    for entry in entries:
        ago = _duration(time.time() - entry.used_s)
        table.add_row(entry.digest[:12], *_facts(entry), _size(entry.nbytes), f"{ago} ago")
    console = Console(markup=False)
    console.print(table)
    total = _size(sum(entry.nbytes for entry in entries))
    limit = _size(cache.limit_bytes)
    console.print(f"{cache.folder}: {len(entries)} plans, {total} of at most {limit}", highlight=False, soft_wrap=True)
    return 0


def _facts(entry: Entry) -> tuple[str, str, str, str]:
    """Graph, precision, library and its version in short, GPU."""
    if entry.record is None:
        return "(no record)", "", "", ""
    key = entry.record.key
    gpu = key.target.gpu_name or " ".join(f"SM{cc.replace('.', '')}" for cc in key.target.compute_capabilities)
    version = ".".join(key.library_version.split(".")[:3])
    return entry.record.name, key.precision.replace("float", "f"), f"{key.library} {version}", gpu


def _chosen(cache: PlanCache, digests: Sequence[str], every: bool, older_than_days: float | None) -> list[Entry]:
    if bool(digests) + every + (older_than_days is not None) != 1:
        raise InputError("trt-export cache rm: say which plans: DIGEST..., --all, or --older_than DAYS")
    if older_than_days is not None:
        if not older_than_days >= 0:
            raise InputError(f"--older_than: expected days from 0 up, got {older_than_days}")
        before = time.time() - older_than_days * _DAY_S
        return [entry for entry in cache.entries() if entry.used_s <= before]
    if every:
        cache.sweep()
        return cache.entries()
    found = [cache.resolve(digest) for digest in digests]  # all of them, before the first one goes
    return list({entry.digest: entry for entry in found}.values())


def _rm(cache: PlanCache, entries: Sequence[Entry], *, as_json: bool) -> int:
    removed = [entry for entry in entries if cache.remove(entry.digest)]
    kept = [entry for entry in entries if entry not in removed]
    for entry in kept:
        print(f"warning: {entry.digest[:12]}: kept, it is being built or loaded", file=sys.stderr)
    if as_json:
        print(json.dumps({"removed": [e.digest for e in removed], "kept": [e.digest for e in kept]}, indent=1))
    else:
        print(f"{cache.folder}: {len(removed)} plans removed, {_size(sum(entry.nbytes for entry in removed))}")
    return 1 if kept else 0


def _verify(cache: PlanCache, *, remove: bool, as_json: bool) -> int:
    checked = list(cache.verify())
    damaged = {entry.digest: reason for entry, reason in checked if reason is not None}
    removed = [digest for digest in damaged if remove and cache.remove(digest)]
    if as_json:
        print(json.dumps({"plans": len(checked), "damaged": damaged, "removed": removed}, indent=1))
    else:
        for digest, reason in damaged.items():
            print(f"{digest[:12]}: {reason}{'; removed' if digest in removed else ''}")
        print(f"{cache.folder}: {len(checked) - len(damaged)} of {len(checked)} plans are sound")
    return 1 if damaged else 0


def _as_json(entry: Entry) -> dict[str, Any]:
    facts = {"digest": entry.digest, "path": str(entry.plan), "bytes": entry.nbytes, "used_s": entry.used_s}
    return facts | {"record": encode(entry.record)}


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    for unit, name in ((_DAY_S, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
