"""The blocklist: whole words and phrases, through case, accents, endings and the usual disguises.

A word is met when it is written with other capitals, accents, widths, look-alike letters of other scripts, digits and
signs for letters (`c0c@ine`), stretched (`shiiit`), hyphenated or spelt out (`sh-it`, `s h i t`), masked (`sh*t`), or,
from six letters on, with one letter too many or two swapped inside. It is not met inside another word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from worldrt.runtime.safety.word_lists import Entry
from worldrt.runtime.safety.words import fold, inflected, joined, one_edit_back, parts, readings, unspaced

FUZZY_LETTERS = 6  # shorter words have too many neighbours
MASKED_LETTERS = 4


class Blocklist:
    """`allowed` are words that are never refused by themselves; in a blocked phrase they count."""

    name = "blocklist"

    def __init__(self, entries: Iterable[Entry], allowed: Iterable[str] = ()) -> None:
        self._words: dict[str, str] = {}  # word -> category
        self._forms: dict[str, str] = {}  # the same with endings
        self._exact: dict[str, str] = {}
        self._phrases: dict[str, dict[tuple[str, ...], str]] = {}  # by their first word
        self._unspaced: dict[str, str] = {}
        self._allowed = {fold(word) for word in allowed}
        for entry in entries:
            self._add(entry)
        self._longest = max(map(len, self._words), default=0)

    def _add(self, entry: Entry) -> None:
        text = fold(entry.text)
        words = tuple(part for chunk in text.split() for part in parts(chunk))
        if len(words) > 1 and len(text.split()) == 1 and joined(text).isalnum():  # self-harm, selfharm
            self._add(replace(entry, text=joined(text)))
        if unspaced(text):
            self._unspaced["".join(text.split())] = entry.category
        elif len(words) > 1:
            endings = {words[-1]} if entry.exact else inflected(words[-1])
            same_start = self._phrases.setdefault(words[0], {})
            same_start |= {(*words[:-1], ending): entry.category for ending in endings}
        elif len(words) == 1 and entry.exact:
            self._exact[words[0]] = entry.category
        elif len(words) == 1:
            self._words[words[0]] = entry.category
            self._forms |= dict.fromkeys(inflected(words[0]), entry.category)

    def to(self, device: str) -> None:
        """It has no models."""

    def unload(self) -> None:
        """It has no models."""

    def refuses(self, text: str) -> str | None:
        """`word 3 (violence)` for a text that is refused, counted from 1 by spaces; None for any other."""
        folded = fold(text)
        chunks = folded.split()
        squeezed = "".join(chunks)
        for entry, category in self._unspaced.items():
            if entry in squeezed:
                return f"a phrase of it ({category})"
        numbered = [(number, part) for number, chunk in enumerate(chunks, 1) for part in parts(chunk)]
        first: dict[str, int] = {}
        for number, word in [*numbered, *_joined(chunks), *_spelt(numbered)]:
            first.setdefault(word, number)
        for word, number in first.items():
            if word not in self._allowed and (found := self._of_word(word)):
                return f"word {number} ({found})"
        return self._of_phrases(numbered)

    def _of_word(self, word: str) -> str | None:
        if word in self._exact:
            return self._exact[word]
        for reading in readings(word):
            if reading in self._forms:
                return self._forms[reading]
            if FUZZY_LETTERS < len(reading) <= self._longest + 1 and reading not in self._allowed:
                for closer in one_edit_back(reading):
                    if len(closer) >= FUZZY_LETTERS and closer in self._words:
                        return self._words[closer]
        return self._of_masked(word) if "*" in word else None

    def _of_masked(self, word: str) -> str | None:
        """`sh*t`: a star is any letter, where most letters are there."""
        if len(word) < MASKED_LETTERS or 2 * word.count("*") > len(word):
            return None
        pattern = re.compile(re.escape(word).replace(r"\*", r"\w"))
        return next((category for entry, category in self._forms.items() if pattern.fullmatch(entry)), None)

    def _of_phrases(self, numbered: list[tuple[int, str]]) -> str | None:
        read = [(number, readings(word)) for number, word in numbered]
        for start, (number, words) in enumerate(read):
            for phrase, category in (pair for word in words for pair in self._phrases.get(word, {}).items()):
                window = read[start : start + len(phrase)]
                if len(window) == len(phrase) and all(w in found for w, (_, found) in zip(phrase, window, strict=True)):
                    last = window[-1][0]
                    return f"word {number} ({category})" if last == number else f"words {number} to {last} ({category})"
        return None


def _joined(chunks: list[str]) -> Iterator[tuple[int, str]]:
    """Pieces that hyphens, points or other signs divide, as one word."""
    for number, chunk in enumerate(chunks, 1):
        if (word := joined(chunk)) not in parts(chunk):
            yield number, word


def _spelt(numbered: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Runs of three or more single letters as one word."""
    run: list[tuple[int, str]] = []
    for number, word in [*numbered, (0, "")]:
        if len(word) == 1:
            run.append((number, word))
            continue
        if len(run) > 2:
            yield run[0][0], "".join(letter for _, letter in run)
        run = []
