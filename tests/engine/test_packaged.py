"""What comes with the package is found where nothing else is, and never in front of what a user made."""

import json

import pytest

from worldrt.engine import packaged
from worldrt.engine.errors import InputError
from worldrt.runtime.locate import find_bundles


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder of models of the package, and an empty one of the user's bundles."""
    monkeypatch.setattr(packaged, "PLACE", tmp_path / "models")
    (tmp_path / "bundles").mkdir()
    monkeypatch.setenv("WORLDRT_BUNDLES", str(tmp_path / "bundles"))
    return tmp_path


def bundle(folder):
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps({}))
    return folder


def test_nothing_is_packaged_where_the_folder_is_empty(places):
    (places / "models" / "nano").mkdir(parents=True)
    assert packaged.packaged("nano") is None
    with pytest.raises(InputError, match="trt-export --model nano"):
        find_bundles(None)


def test_the_packaged_model_is_taken_where_there_is_no_other(places):
    own = bundle(places / "models" / "nano")
    assert find_bundles(None) == [own]
    assert find_bundles("nano") == find_bundles("Nano") == [own]
    with pytest.raises(InputError, match="no bundle of size '14B'"):
        find_bundles("14B")


def test_a_bundle_of_the_user_comes_first(places):
    bundle(places / "models" / "nano")
    theirs = bundle(places / "bundles" / "nano-fp16")
    assert find_bundles(None) == find_bundles("nano") == [theirs]
