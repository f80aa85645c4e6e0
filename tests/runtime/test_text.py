"""Prompts: tokens as transformers makes them, rows as the encoder gives them, zeros beyond."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine import bundle as b
from worldrt.engine.errors import BundleError, InputError
from worldrt.runtime.components import Execution, Opener
from worldrt.runtime.text import TextEncoder

PROMPTS = ["A red car drives along a coast road.", "x", "Ein Auto fährt; 車が走る 🚗", "  two  spaces\nand a line  "]


@pytest.fixture
def encoder(nano_by_torch):
    opener = Opener(b.load_bundle(nano_by_torch.folder), Execution())
    return TextEncoder(opener, nano_by_torch.manifest.text)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_are_those_of_transformers(encoder, nano, prompt):
    transformers = pytest.importorskip("transformers")
    file = str(nano.folder / "text" / "tokenizer.json")
    reference = transformers.PreTrainedTokenizerFast(tokenizer_file=file, eos_token="</s>")
    ids = encoder.tokens(prompt)
    assert ids == reference(prompt)["input_ids"]
    assert ids[-1] == reference.eos_token_id and ids.count(ids[-1]) == 1


def test_rows_and_zeros(encoder, nano):
    """The encoder at the true length gives what transformers' T5 gives with padding and a mask."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    reference = transformers.T5EncoderModel.from_pretrained(nano.root / "text_encoder").eval()
    ids = encoder.tokens(PROMPTS[0])
    padded = torch.zeros(1, 40, dtype=torch.int64)
    padded[0, : len(ids)] = torch.tensor(ids)
    mask = (torch.arange(40) < len(ids))[None].long()
    with torch.no_grad():
        expected = reference(input_ids=padded, attention_mask=mask).last_hidden_state[0, : len(ids)].numpy()
    rows = encoder.encode(PROMPTS[0])
    assert rows.shape == (512, 128) and rows.dtype == np.float32
    assert np.abs(rows[: len(ids)] - expected).max() <= 1e-5 * np.abs(expected).max()
    assert not rows[len(ids) :].any() and np.abs(rows[len(ids) - 1]).max() > 0


def test_the_same_text_is_encoded_once(encoder, monkeypatch):
    first = encoder.encode("a")
    monkeypatch.setattr(encoder, "_run", lambda ids: pytest.fail("encoded again"))
    assert encoder.encode("a") is first and not first.flags.writeable
    encoder.unload()
    assert encoder.encode("a") is first


def test_too_long(encoder):
    with pytest.raises(InputError, match=r"10000 words.*reads 512"):
        encoder.encode("word " * 10000)


def test_not_a_tokenizer(nano, tmp_path, encoder):
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{}")
    encoder._tokenizer_file = broken
    with pytest.raises(BundleError, match="not a tokenizer file"):
        encoder.tokens("x")
