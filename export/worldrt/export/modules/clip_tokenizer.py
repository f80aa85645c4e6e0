"""The tokenizer of CLIP as one `tokenizer.json`, from the `vocab.json` and `merges.txt` that checkpoints hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from worldrt.engine.errors import CheckpointError
from worldrt.export.modules.nano_tokenizer import sentences

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_LARGEST_BYTES = 50_000_000


def from_files(vocabulary: Path, merges: Path) -> Tokenizer:
    """Raises `CheckpointError` for files that are no tokenizer of CLIP."""
    try:
        if max(vocabulary.stat().st_size, merges.stat().st_size) > _LARGEST_BYTES:
            raise ValueError("larger than any tokenizer")
        ids = json.loads(vocabulary.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [(a, b) for a, b in (line.split() for line in lines if line and not line.startswith("#version"))]
        return _complete(models.BPE(ids, pairs, unk_token=END, end_of_word_suffix=WORD_END, fuse_unk=False))
    except Exception as error:  # the package raises plain Exception
        raise CheckpointError(f"{vocabulary}, {merges.name}: not the tokenizer of CLIP: {error}") from error


def train(vocabulary: int, folder: Path) -> None:
    """Write `vocab.json` and `merges.txt` of a small tokenizer; the same ones every time."""
    tokenizer = _parted(Tokenizer(models.BPE(unk_token=END, end_of_word_suffix=WORD_END)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2, initial_alphabet=alphabet, end_of_word_suffix=WORD_END, show_progress=False
    )
    tokenizer.train_from_iterator(_spelled(alphabet), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    ids = sorted(model["vocab"], key=model["vocab"].__getitem__)[: vocabulary - 2]
    folder.mkdir(parents=True, exist_ok=True)
    numbered = {token: number for number, token in enumerate([*ids, BEGIN, END])}
    (folder / "vocab.json").write_text(json.dumps(numbered, ensure_ascii=False), encoding="utf-8")
    known = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *known, ""]), encoding="utf-8")


def _spelled(alphabet: list[str]) -> Iterable[str]:
    """Sentences, and every ASCII character as a word of its own."""
    yield " ".join(character for character in alphabet if character.isascii())
    yield from sentences()


def _parted(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _complete(model: models.BPE) -> Tokenizer:
    tokenizer = _parted(Tokenizer(model))
    tokenizer.add_special_tokens([BEGIN, END])
    special = [(token, tokenizer.get_vocab()[token]) for token in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=special)
    return tokenizer
