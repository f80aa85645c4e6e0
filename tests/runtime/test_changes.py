"""Which denoisers take other weights, by the flags."""

import argparse
from pathlib import Path

import pytest

from worldrt.engine.errors import InputError
from worldrt.engine.lora import LoraChoice
from worldrt.engine.overlay import WeightChange
from worldrt.runtime.changes import changes_of, is_bundle


def flags(verb, **given):
    none = {"dit_path": "", "dit_path_text2image": "", "dit_path_video2world": "", "lora": []}
    return argparse.Namespace(verb=verb, **(none | given))


def test_a_change_is_for_the_model_that_makes_the_result_unless_another_is_named():
    a, b = Path("a.safetensors"), Path("b.safetensors")
    assert changes_of(flags("text2world", dit_path="a.safetensors", lora=["l.safetensors:0.5"])) == {
        "video2world": WeightChange(a, (LoraChoice(Path("l.safetensors"), 0.5),))
    }
    both = flags("text2world", dit_path_text2image="a.safetensors", dit_path_video2world="b.safetensors")
    assert changes_of(both) == {"text2image": WeightChange(a), "video2world": WeightChange(b)}
    assert changes_of(flags("text2image", dit_path_text2image="a.safetensors")) == {"text2image": WeightChange(a)}
    with pytest.raises(InputError, match="named twice"):
        changes_of(flags("video2world", dit_path="a.safetensors", dit_path_video2world="b.safetensors"))


@pytest.mark.parametrize("verb, other", [("video2world", "text2image"), ("text2image", "video2world")])
def test_weights_of_a_model_that_is_not_run_are_refused(verb, other):
    with pytest.raises(InputError, match=f"--dit_path_{other}: {verb} does not run a model of {other}"):
        changes_of(flags(verb, **{f"dit_path_{other}": "a.safetensors"}))


def test_a_name_that_is_too_long_is_no_bundle_and_no_weights():
    name = "a" * 5000
    assert not is_bundle(name)
    with pytest.raises(InputError, match="expected a bundle"):
        changes_of(flags("video2world", dit_path=name))
