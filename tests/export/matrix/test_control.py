"""Controls: sentences are parsed and told by their hashes, never executed, and embedded as CLIP does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import save_file

from worldrt.engine.errors import CheckpointError, InputError
from worldrt.export.families.matrix import control
from worldrt.export.families.matrix.parts import model
from worldrt.export.plan import Options

GOLDEN = Path(__file__).parents[2] / "golden" / "matrix" / "control.json"
SENTENCES = {symbol: f"this stands for {symbol}" for symbol in control.SYMBOLS}


def source(table=None):
    """A file like the official one; running it would raise."""
    table = SENTENCES if table is None else table
    return f"import nothing_like_it\nraise SystemExit\n{control.TABLE} = {table!r}\n"


@pytest.fixture
def known(monkeypatch):
    """Take these sentences for the official ones."""
    hashes = {s: (len(text), hashlib.sha256(text.encode()).hexdigest()) for s, text in SENTENCES.items()}
    monkeypatch.setattr(control, "_KNOWN", hashes)


def test_the_vocabulary_is_the_official_one():
    vocabulary = json.loads(GOLDEN.read_text(encoding="utf-8"))["vocabulary"]
    assert [word["symbol"] for word in vocabulary] == list(control.SYMBOLS)
    assert {w["symbol"]: (w["utf8_len"], w["sha256"]) for w in vocabulary} == control._KNOWN


def test_sentences_are_found_in_a_copy_of_the_repository(known, tmp_path):
    place = tmp_path / control.PLACES[1]
    place.parent.mkdir(parents=True)
    place.write_text(source(), encoding="utf-8")
    assert control.read_sentences(tmp_path) == control.read_sentences(place) == list(SENTENCES.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (source(), "not that of the official models"),
        (source({"D": "only one"}), "expected sentences for D, DL"),
        (source({**SENTENCES, "D": 3}), "assigns no table of texts"),
        (f"{control.TABLE} = dict(D=print('no'))", "not a table of plain texts"),
        ("def", "cannot|parsed"),
        ("x = 1", "assigns no table"),
        ("#" * 1_000_001, "larger than"),
        ("(" * 5000, "parsed"),
    ],
)
def test_other_sentences_are_refused(tmp_path, text, says):
    (tmp_path / "control_adapter.py").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        control.read_sentences(tmp_path / "control_adapter.py")
    with pytest.raises(InputError, match="give a copy of https://github.com/MatrixTeam-AI/matrix"):
        control.read_sentences(tmp_path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP with random weights and a tokenizer of single letters, as a folder."""
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "projection_dim": 12}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    whole.eval().save_pretrained(folder)
    return folder, whole, tokenizer


def test_sentences_are_embedded_as_by_the_official_pipeline(clip):
    folder, whole, tokenizer = clip
    sentences = list(SENTENCES.values())
    with torch.no_grad():
        made = whole.get_text_features(**tokenizer(sentences, padding=True, return_tensors="pt"))
    expected = (made if isinstance(made, torch.Tensor) else made.pooler_output).numpy()
    got = control.embed(sentences, folder)
    assert got.shape == (9, 12) and np.abs(got - expected).max() <= 1e-6
    assert np.abs(got[0] - got[1]).max() > 1e-4, "sentences are told apart"


def test_a_folder_without_clip_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"not a CLIP model.*fetch https://huggingface.co/openai/clip"):
        control.embed(["one"], tmp_path)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"x": np.zeros((9, 5), np.float32)}, r"expected one tensor float32\[9, 48\], got x float32\[9, 5\]"),
        ({"x": np.zeros((9, 48), np.float32), "y": np.zeros((9, 48), np.float32)}, "expected one tensor"),
        ({"x": np.full((9, 48), np.nan, np.float32)}, "expected finite numbers"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, tensors, says):
    save_file(tensors, tmp_path / "t.safetensors")
    with pytest.raises(CheckpointError, match=says):
        control.read_embeddings(tmp_path / "t.safetensors", (9, 48))


def test_what_to_give_is_said_where_nothing_is_given(tmp_path):
    (file,) = model(Options("matrix-stage4")).parts[0].files
    with pytest.raises(CheckpointError, match=r"--control_sentences, or give a table as --control_embeddings: float32"):
        file.make(tmp_path, tmp_path / "control.safetensors")


def test_without_clip_the_message_names_the_flag(known, tmp_path):
    (tmp_path / "control_adapter.py").write_text(source(), encoding="utf-8")
    options = Options("matrix-stage4", control_sentences=tmp_path / "control_adapter.py")
    (file,) = model(options).parts[0].files
    with pytest.raises(CheckpointError, match="say with --clip where it is"):
        file.make(tmp_path, tmp_path / "control.safetensors")
