"""The critic: a vision-language model that is asked several times whether something in a clip is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from worldrt.engine.bundle import file_sha256
from worldrt.engine.errors import InputError
from worldrt.runtime.reason.answers import Answer, parse
from worldrt.runtime.reason.chat import Chat, Progress, Question, Sampling
from worldrt.runtime.reason.clip import Clip
from worldrt.runtime.reason.words import digest, instruction

SAMPLING = Sampling(4096, temperature=0.6, top_p=0.95, top_k=50, repetition_penalty=1.05)
QUESTION = "This clip lasts {seconds:.1f} s. Is anything in it wrong? Follow the form that you were given."
MOST_TRIALS = 100


@dataclass(frozen=True)
class Review:
    """What a critic said of a clip. `made_from` is all that the answers depend on."""

    answers: tuple[Answer, ...]
    made_from: Mapping[str, Any]

    @property
    def sound(self) -> int:
        """Answers that found nothing wrong."""
        return sum(answer.anomaly is False for answer in self.answers)

    @property
    def understood(self) -> int:
        """Answers with a verdict; the others do not count."""
        return sum(answer.anomaly is not None for answer in self.answers)

    @property
    def score(self) -> float | None:
        """The share of "No" (nothing wrong) among the verdicts, 0 to 1; None where there is no verdict."""
        return self.sound / self.understood if self.understood else None

    @property
    def suffix(self) -> str:
        """Of the names of files that are about this review: `_score080` for 0.8 (rounded down), as the official
        script names them."""
        return f"_score{100 * self.sound // self.understood:03d}" if self.understood else "_unscored"

    def as_json(self) -> dict[str, Any]:
        """Plain data; `responses` are the answers word by word."""
        return {
            "score": self.score,
            "no": self.sound,
            "understood": self.understood,
            "made_from": dict(self.made_from),
            "trials": [{name: v for name, v in asdict(answer).items() if name != "text"} for answer in self.answers],
            "responses": [answer.text for answer in self.answers],
        }


class Critic:
    """`Critic(chat).review(read_clip(path), trials=5)`. `prompt` is a file with another instruction."""

    def __init__(self, chat: Chat, prompt: Path | None = None) -> None:
        self.chat = chat
        self._system = instruction("critic", prompt)

    def check(self, trials: int) -> None:
        """Raises `InputError` for a number of trials that cannot be had."""
        if not 1 <= trials <= MOST_TRIALS:
            raise InputError(f"num_critic_trials: expected 1 to {MOST_TRIALS}, got {trials}")

    def made_from(self, video: Path, trials: int, seed: int) -> dict[str, Any]:
        """What a review depends on: one that was made from the same need not be made again."""
        sampling = {name: value for name, value in asdict(SAMPLING).items() if name not in ("seed", "ascii_only")}
        texts = {"instruction_sha256": digest(self._system), "question": QUESTION}
        return {
            "video_sha256": file_sha256(video), "critic": self.chat.name, "trials": trials, "seed": seed,
            "sampling": sampling, **texts,
        }  # fmt: skip

    def review(self, clip: Clip, trials: int = 5, seed: int = 0, progress: Progress | None = None) -> Review:
        """Ask `trials` times, with random numbers from `seed`. Raises `InputError`, and `BackendError` as of `Chat`."""
        self.check(trials)
        facts = self.made_from(clip.path, trials, seed)
        text = QUESTION.format(seconds=clip.duration_s)
        question = Question(self._system, text, clip.frames, clip.fps, clip.path)
        sampling = replace(SAMPLING, seed=seed)
        answers = self.chat.ask(question, sampling, trials, progress)
        return Review(tuple(parse(answer) for answer in answers), facts)
