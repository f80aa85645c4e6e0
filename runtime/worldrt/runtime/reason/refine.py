"""The refiner: a vision-language model that writes a user's prompt anew for the video model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from worldrt.runtime.reason.chat import Chat, Frames, Question, Sampling
from worldrt.runtime.reason.words import instruction

SAMPLING = Sampling(512, repetition_penalty=1.05, ascii_only=True)  # the likeliest words: the same prompt each time
MOST_CHARACTERS = 4000
FEWEST_WORDS = 3
FOREIGN = 0.2  # the share of letters without an ASCII counterpart past which an answer is in another language
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "\u00a0": " "})
_THOUGHT = re.compile(r"^.*</think>", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"^\W*(?:(?:refined|rewritten|improved|final|video)\s+)?prompt\W*:\W*", re.IGNORECASE)


class Refiner:
    """`refine(prompt, frames)`. `prompt` is a file with another instruction; `fits` says whether the text encoder reads
    all of a text; `warn` is told where the user's own prompt is kept."""

    def __init__(
        self,
        chat: Chat,
        prompt: Path | None = None,
        fits: Callable[[str], bool] = lambda text: True,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.chat, self._fits, self._warn = chat, fits, warn
        self._system = instruction("refiner", prompt)
        self._last: tuple[tuple[str, str], str] | None = None

    def refine(self, prompt: str, frames: Frames | None) -> str:
        """The prompt written anew, after a look at uint8 RGB frames (t, h, w, 3) that the video goes on from.

        Where the answer is unusable (empty, in another script, or its first sentence too long for the text encoder)
        that is the user's own prompt, with a warning. The last answer is kept, for a run with another seed. Raises
        `BackendError` as of `Chat`.
        """
        key = prompt, "" if frames is None else sha256(frames.tobytes()).hexdigest()
        if self._last is None or self._last[0] != key:
            answer = self.chat.ask(Question(self._system, prompt, frames), SAMPLING)[0]
            self._last = key, shortened(cleaned(answer), self._fits)
        refined = self._last[1]
        if not refined:
            self._warn("the refiner's answer cannot be used; the prompt is taken as it was given")
        return refined or prompt

    def unload(self) -> None:
        self.chat.unload()


def cleaned(answer: str) -> str:
    """One paragraph of ASCII, without thoughts, labels and quotation marks around it; empty where little is left."""
    text = _THOUGHT.sub("", answer.translate(_PLAIN))
    letters = [c for c in unicodedata.normalize("NFKD", text) if c.isalpha()]
    if sum(not c.isascii() for c in letters) > FOREIGN * len(letters):
        return ""
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = " ".join("".join(c if c.isprintable() else " " for c in re.sub(r"<[^<>]{0,200}>", " ", text)).split())
    text = _LABEL.sub("", text).strip("*_`#> ")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text if len(text.split()) >= FEWEST_WORDS else ""


def shortened(text: str, fits: Callable[[str], bool]) -> str:
    """As many whole sentences of a text, from its first, as fit; empty where not even that one does."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    while sentences and not (len(kept := " ".join(sentences)) <= MOST_CHARACTERS and (not kept or fits(kept))):
        sentences.pop()
    return " ".join(sentences)
