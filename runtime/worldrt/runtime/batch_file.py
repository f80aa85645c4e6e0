"""`--batch_input_json`: a list of items, each of which changes a few things of what the flags say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from worldrt.engine.errors import InputError
from worldrt.engine.schema import decode, parse_json
from worldrt.runtime.jobs import Job


def read(path: Path, job: Job) -> list[Job]:
    """The jobs of a file. Raises `InputError`."""
    try:
        items = parse_json(path.read_text(encoding="utf-8"))
        made = [_of_item(decode(dict[str, str], item, f"[{i}]"), job) for i, item in enumerate(items)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise InputError(f"{path}: expected a list of {{prompt, output_video}}: {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: expected a list of {{prompt, output_video}}: {error}") from error
    if not made:
        raise InputError(f"{path}: expected a list of {{prompt, output_video}}, got an empty one")
    return made


def _of_item(item: Mapping[str, str], job: Job) -> Job:
    return replace(
        job,
        request=replace(job.request, prompt=item["prompt"]),
        place=item["output_image" if "output_image" in item else "output_video"],
        input_path=Path(item["input_video"]) if "input_video" in item else job.input_path,
        refined_prompt=None,
    )
