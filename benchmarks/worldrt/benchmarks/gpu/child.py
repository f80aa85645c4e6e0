"""One part in a process of its own: `python -m worldrt.benchmarks.gpu.child PART SETUP.json RESULT.json`.

The result file is written anew whenever the part has made something, so that a part that crashes or is stopped leaves
what it had.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldrt.benchmarks.gpu.base import CheckError, MissingError, Samples, Setup, first_line
from worldrt.benchmarks.results import Table
from worldrt.engine import plugin
from worldrt.engine.schema import decode, encode

PASSED, SKIPPED, FAILED = "passed", "skipped", "FAILED"


def main(argv: Sequence[str]) -> int:
    """Run a part; the result file says how it ended, the exit code only that it did."""
    name, setup_file, result_file = argv
    setup = decode(Setup, json.loads(Path(setup_file).read_text(encoding="utf-8")))
    outcome, reason = run(name, setup, Path(result_file))
    print(f"{name}: {outcome}{': ' if reason else ''}{reason}", flush=True)
    return 0


def run(name: str, setup: Setup, result: Path) -> tuple[str, str]:
    """How the part ended, and why where it did not pass."""
    tables: list[Table] = []
    samples: Samples = {}
    outcome, reason = PASSED, ""
    try:
        for made, measured in plugin.load(__package__ or "", name.partition(":")[0]).run(setup):
            tables += made
            samples |= measured
            _write(result, tables, samples, "", "stopped in the middle")
    except MissingError as missing:
        outcome, reason = SKIPPED, str(missing)
    except CheckError as failed:
        outcome, reason = FAILED, str(failed)
    except Exception as failure:
        traceback.print_exc()
        outcome, reason = FAILED, first_line(failure)
    _write(result, tables, samples, outcome, reason)
    return outcome, reason


def _write(path: Path, tables: list[Table], samples: Samples, outcome: str, reason: str) -> None:
    data: dict[str, Any] = {"tables": encode(tables), "samples": samples, "outcome": outcome, "reason": reason}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data), encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
