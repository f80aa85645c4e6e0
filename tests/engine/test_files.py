import errno
import os
import subprocess
import sys

import pytest

from worldrt.engine import files
from worldrt.engine.errors import OutputError
from worldrt.engine.files import inside, staged_file, staged_folder


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "sub" / "out.mp4"
    with pytest.raises(RuntimeError), staged_file(target) as part:
        part.write_bytes(b"half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with staged_file(target) as part:
        assert part.suffix == ".mp4"
        part.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert os.listdir(target.parent) == ["out.mp4"]


def test_an_existing_place_is_kept(tmp_path):
    target = tmp_path / "out"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists.*--overwrite"), staged_file(target):
        pass
    with pytest.raises(KeyboardInterrupt), staged_file(target, overwrite=True) as part:
        part.write_text("theirs")
        raise KeyboardInterrupt
    assert target.read_text() == "mine"
    with staged_file(target, overwrite=True) as part:
        part.write_text("theirs")
    assert target.read_text() == "theirs"


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "bundle"
    for text in ("one", "two"):
        with staged_folder(target, overwrite=True) as part:
            (part / text).write_text(text)
            (part / "bundle.json").write_text("{}")
    assert sorted(os.listdir(target)) == ["bundle.json", "two"]
    with pytest.raises(ValueError, match="stop"), staged_folder(target, overwrite=True) as part:
        (part / "three").write_text("")
        raise ValueError("stop")
    assert sorted(os.listdir(target)) == ["bundle.json", "two"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_full_disk_and_unwritable_places_are_explained(tmp_path):
    with pytest.raises(OutputError, match="disk is full"), staged_file(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), staged_file(tmp_path / "file" / "out"):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_paths_stay_inside(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    assert inside(root, "a/b") == root / "a" / "b"
    for bad in ("../x", "/etc/passwd", "a/../../x", "link/x"):
        with pytest.raises(ValueError, match="leads out of"):
            inside(root, bad)


def test_what_is_not_a_bundle_is_not_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("precious")
    with pytest.raises(OutputError, match="holds other things"), staged_folder(tmp_path / "home", overwrite=True):
        pass
    with pytest.raises(OutputError, match="it is a folder"), staged_file(tmp_path / "home", overwrite=True):
        pass
    assert (tmp_path / "home" / "letter").read_text() == "precious"


def test_of_two_writers_at_once_the_first_one_wins(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(OutputError, match="made meanwhile"), staged_file(target) as one:
        with staged_file(target) as two:
            two.write_text("first")
        one.write_text("second")
    assert target.read_text() == "first"
    target.unlink()
    target.symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists"), staged_file(target):
        pass
    assert os.listdir(tmp_path) == ["out"]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OutputError, match="too long"), staged_file(tmp_path / ("a" * 300)):
        pass


def test_every_name_that_a_file_can_have_can_be_written(tmp_path):
    for name in ("a" * 251 + ".mp4", "\u8eca" * 83 + ".json"):
        with staged_file(tmp_path / name) as part:
            part.write_text("x")
        assert (tmp_path / name).read_text() == "x"


def test_a_name_that_the_locale_cannot_write_is_said(tmp_path):
    code = (
        "from pathlib import Path; from worldrt.engine.files import check_place\n"
        "check_place(Path('\\u8eca.mp4'), overwrite=False)"
    )
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert "OutputError" in done.stderr.splitlines()[-1] and "LC_ALL=C.UTF-8" in done.stderr


def test_a_folder_that_is_read_only_is_said_before_any_work(tmp_path, monkeypatch):
    """The system's own answer, as for a disk that is mounted so; root may write into any other."""
    monkeypatch.setattr(files.os, "access", lambda place, mode: place != tmp_path)
    with pytest.raises(OutputError, match="read-only"):
        files.check_place(tmp_path / "out.mp4", overwrite=True)
    files.check_place(tmp_path / "new" / "out.mp4", overwrite=False)
