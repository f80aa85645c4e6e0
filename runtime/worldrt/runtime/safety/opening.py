"""From a folder of weights and lists of words to a guard."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from worldrt.engine.bundle import Bundle
from worldrt.engine.errors import CheckpointError
from worldrt.runtime.safety.blocklist import Blocklist
from worldrt.runtime.safety.faces import Faces
from worldrt.runtime.safety.guardrail import Guardrail
from worldrt.runtime.safety.libraries import library, torch_device
from worldrt.runtime.safety.places import find_places
from worldrt.runtime.safety.text_model import TextModel
from worldrt.runtime.safety.video_model import VideoModel
from worldrt.runtime.safety.word_lists import own_list, read_folder, read_list

VARIABLE = "WORLDRT_GUARDRAIL"
ABSENT = (
    "guardrail: its weights are not given, and this model runs with it. Fetch nvidia/Cosmos-Guardrail1 and "
    f"meta-llama/Llama-Guard-3-8B into a folder, and name it by --guardrail_path or ${VARIABLE}; --disable_guardrail "
    "runs without (see docs/safety.md for what the licence of the model says of that)"
)


def needs_models(bundles: Iterable[Bundle]) -> bool:
    """Whether the guard of these bundles must look with its models, which are those of Cosmos-Predict2 whatever the
    family: no other one has published some. For nano models words do."""
    return any(bundle.manifest.variant.partition("-")[0] != "nano" for bundle in bundles)


def open_guard(
    folder: Path | str | None = None,
    *,
    blocklist: Path | str | None = None,
    models: bool = True,
    device: str = "cpu",
    offload: bool = False,
) -> Guardrail:
    """A guard. `folder` holds its weights, `blocklist` is a file of further words.

    `models=False` asks for the blocklist alone, where no folder is given; otherwise the folder is that of
    `$WORLDRT_GUARDRAIL` by default. `device` is one of worldrt; models lie there, or with `offload` only while they
    check. They are loaded when they are first needed. Raises `CheckpointError`, `InputError` or `BackendError` for
    what is missing.
    """
    more = [] if blocklist is None else read_list(Path(blocklist))
    chosen = folder or (os.environ.get(VARIABLE) if models else None)
    if not chosen:
        if models:
            raise CheckpointError(ABSENT)
        return Guardrail([Blocklist([*own_list(), *more])])
    places = find_places(Path(chosen).expanduser())
    entries = [*read_folder(places.blocklist / "custom"), *read_folder(places.blocklist / "exact_match", exact=True)]
    if not entries:
        raise CheckpointError(f"guardrail: {places.blocklist}: it holds no words; fetch it again")
    allowed = [entry.text for entry in read_folder(places.blocklist / "whitelist")]
    for name in ("torch", "transformers", "PIL"):
        library(name)
    return Guardrail(
        [Blocklist([*entries, *more], allowed), TextModel(places.text_model)],
        VideoModel(places.encoder, places.classifier),
        Faces(places.faces),
        device=torch_device(device),
        offload=offload,
    )
