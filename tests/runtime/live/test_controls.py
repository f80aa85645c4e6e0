"""Controls against what the official code gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.live import controls

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "matrix" / "control.json").read_text())


def indices(case):
    generator = controls.RandomControls(
        case["seed"], case["signal_choices"], case["repeat_lens"], case["change_prob_increment"]
    )
    expected = case.get("indices") or case["first_200"]
    return [controls.VOCABULARY.index(generator()) for _ in expected], expected


def test_the_vocabulary_has_the_official_order():
    assert list(controls.VOCABULARY) == [entry["symbol"] for entry in GOLDEN["vocabulary"]]


@pytest.mark.parametrize("kind", ("random_offline", "random_offline_variants", "random_front_end"))
def test_random_controls_are_the_official_ones(kind):
    for case in GOLDEN[kind]:
        got, expected = indices(case)
        assert got == expected, case


@pytest.mark.parametrize("case", GOLDEN["errors"], ids=str)
def test_what_the_official_generator_refuses_is_refused(case):
    with pytest.raises(InputError):
        if case["length"] == 0:
            controls.random_signal(0, 0)
        else:
            choices = case.get("signal_choices", ("D", "DR", "DL"))
            controls.RandomControls(case["seed"], choices, case["repeat_lens"])


@pytest.mark.parametrize("case", GOLDEN["length_rule"], ids=lambda case: f"{case['length']}s")
def test_the_length_rule_is_the_official_one(case):
    given = case["control_signal"] and controls.parse_signal(case["control_signal"])
    base = controls.base_signal(given, case["length"], case["control_seed"])
    assert ",".join(base) == case["base"]["control_signal"]
    assert controls.base_frames(case["length"]) == case["base"]["num_frames"]
    if case["stream"]:
        stream = controls.stream_signal(given, case["length"], case["control_seed"])
        passed_on = case["stream"]["control_signal"].split(",")
        assert list(stream[: len(passed_on)]) == passed_on
        assert case["stream"]["num_sample_groups"] == case["length"]


@pytest.mark.parametrize("case", GOLDEN["stream_padding"], ids=lambda case: f"{case['padded_len']}")
def test_streams_are_padded_as_the_official_ones_are(case):
    signal = controls.parse_signal(case["control_signal"])
    if case["control_signal_type"] == "raw":
        signal = signal[:: controls.FRAMES_PER_CONTROL]
    window = (case["init_video_clip_frame"] - 1) // 4 + 1
    group = (window - 1) // case["num_noise_groups"]
    got = controls.padded(signal, window + group * case["num_sample_groups"], case["control_seed"])
    assert ",".join(got) == case["padded_control_signal"]
    assert len(got) == case["padded_len"]


@pytest.mark.parametrize("text", ("", "D,", "D;DL", "LEFT", "D,,D", "D," + "x" * 100))
def test_a_signal_with_an_unknown_control_is_refused(text):
    with pytest.raises(InputError, match="expected one of D, DL, DR"):
        controls.parse_signal(text)


def test_signals_may_be_written_with_spaces_and_small_letters():
    assert controls.parse_signal("d, DL ,nr") == ("D", "DL", "NR")
