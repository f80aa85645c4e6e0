"""The house stands: floors, roots of the namespace, size of files."""

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
ROOMS = ["engine", "export", "runtime", "kernels", "benchmarks"]
SOURCES = sorted(path for room in ROOMS for path in (HOUSE / room / "worldrt").rglob("*.py"))


def test_imports_run_downhill():
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=HOUSE, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_a_portion_of_one_namespace(room):
    root = HOUSE / room / "worldrt"
    assert not (root / "__init__.py").exists(), "it would hide the other rooms"
    assert (root / room / "py.typed").exists()
    assert [p.name for p in root.iterdir() if p.name != "__pycache__"] == [room]
    assert not list((HOUSE / room).glob("*.py")), "a file here would be importable by its bare name"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(HOUSE)))
def test_files_are_small_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert text.startswith('"""'), "a module begins by saying what it is"
