"""The texts of many jobs: each is encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job
from worldrt.runtime.long import prompts_of
from worldrt.runtime.pipelines.video2world import negative_text
from worldrt.runtime.request import Request
from worldrt.runtime.text import MOST_PROMPTS, TextEncoder


def prepare(generator: Generator, jobs: Iterable[Job]) -> None:
    """Have a text that several jobs have encoded once. Where the text encoder does not stay loaded, all are encoded
    now."""
    texts = list(dict.fromkeys(text for job in jobs for text in _texts(generator.task, job.request)))
    models = generator.models
    for task in generator.tasks:
        encoder = models.text(task)
        encoder.keep(len(texts))
        if models.execution.offload_text or models.execution.offload:
            models.with_room(task, "text", partial(_encode, encoder, texts[:MOST_PROMPTS]))


def _texts(task: str, request: Request) -> list[str]:
    negative = request.negative_prompt if task == "text2image" else negative_text(request)
    return [text for text in (*prompts_of(request), negative) if text]


def _encode(encoder: TextEncoder, texts: Sequence[str]) -> None:
    for text in texts:
        encoder.encode(text)
    encoder.unload()
