"""README tells the truth: commands exist, flags parse, the first result comes early, links lead somewhere."""

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
README = (HOUSE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:bash|sh)\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()]
PARSERS = {"trt-export": "worldrt.export.cli", "trt-run": "worldrt.runtime.cli", "trt-bench": "worldrt.benchmarks.cli"}


def test_the_first_command_stands_by_line_25():
    first = next(i for i, line in enumerate(README.splitlines(), 1) if line.strip().startswith("make demo"))
    assert first <= 25


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("trt-")])
def test_every_command_parses(line):
    program, *arguments = shlex.split(line, comments=True)
    importlib.import_module(PARSERS[program]).build_parser().parse_args(arguments)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([a-z-]+)", "\n".join(LINES), re.MULTILINE))))
def test_every_make_target_exists(target):
    result = subprocess.run(["make", "-n", target], cwd=HOUSE, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_python_example_imports_public_names():
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        for module, names in re.findall(r"^from (worldrt\S+) import (.+)$", block, re.MULTILINE):
            public = importlib.import_module(module).__all__
            assert {name.strip() for name in names.split(",")} <= set(public)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_every_link_leads_to_a_file(page):
    text = (HOUSE / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (HOUSE / page).parent.joinpath(target).exists(), target
