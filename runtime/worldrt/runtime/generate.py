"""What `text2world`, `text2image` and `video2world` do: request, models, frames, file, sidecar."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldrt.engine.errors import InputError
from worldrt.engine.files import check_place, staged_file
from worldrt.engine.schema import decode, parse_json
from worldrt.runtime import engine_flags, sidecar
from worldrt.runtime.changes import changes_of, is_bundle
from worldrt.runtime.locate import find_bundles
from worldrt.runtime.models import Models
from worldrt.runtime.pipelines.base import Frame
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.pipelines.text2world import Text2World
from worldrt.runtime.pipelines.video2world import Video2World
from worldrt.runtime.progress import Bars, Plain
from worldrt.runtime.record import Recording
from worldrt.runtime.request import Request, Settings
from worldrt.runtime.sinks.base import VideoFormat, open_sink, split_place
from worldrt.runtime.timing import Timings

SOLVERS = {"ab2": "rectified_flow_ab2", "euler": "rectified_flow_euler"}


@dataclass(frozen=True)
class Job:
    """One result to make."""

    request: Request
    place: str
    input_path: Path | None = None
    given_frames: int = 1


@dataclass(frozen=True)
class Result:
    """What was made, and how long each stage took."""

    place: str
    sidecar: Path | None
    video: VideoFormat
    timings: Timings

    def as_json(self) -> dict[str, Any]:
        video = self.video
        return {
            "path": self.place,
            "sidecar": str(self.sidecar) if self.sidecar else None,
            "width": video.width,
            "height": video.height,
            "frames": video.frames,
            "fps": video.fps or None,
            "timings_s": self.timings.rounded(),
        }


def open_models(args: argparse.Namespace) -> Models:
    """The bundles that the flags name."""
    named = [getattr(args, f"dit_path{which}") for which in ("", "_text2image", "_video2world")]
    folders = [place for place in named if place and is_bundle(place)] + args.bundle
    options = {"threads": args.threads} if args.threads and args.backend in ("onnxruntime", "torch") else {}
    return Models.open(
        folders or find_bundles(args.model_size),
        args.checkpoint,
        changes_of(args),
        backend=args.backend,
        guidance=args.cfg,
        offload_text=args.offload_text_encoder,
        options=options,
        record=_recording(args),
        **engine_flags.execution(args),
    )


def _recording(args: argparse.Namespace) -> Recording | None:
    if args.record_inputs is None:
        return None
    if args.batch_input_json is not None or args.benchmark:
        raise InputError("--record_inputs: it keeps one run; leave --batch_input_json and --benchmark out")
    recording = Recording(args.record_inputs, args.record_steps)
    recording.prepare()
    return recording


def jobs(args: argparse.Namespace) -> list[Job]:
    """One job, or those of `--batch_input_json`. Raises `InputError`."""
    request = Request(
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        seed=args.seed,
        steps=args.steps,
        guidance=args.guidance,
        sampler=SOLVERS.get(args.solver, args.solver),
        sigma_max=args.sigma_max,
        sigma_min=args.sigma_min,
        resolution=args.resolution,
        aspect_ratio=args.aspect_ratio,
        fps=getattr(args, "fps", None),
        num_frames=getattr(args, "num_frames", None),
        width=args.width,
        height=args.height,
    )
    job = Job(request, args.save_path, getattr(args, "input_path", None), getattr(args, "num_conditional_frames", 1))
    return [job] if args.batch_input_json is None else _batch(args.batch_input_json, job)


def _batch(path: Path, job: Job) -> list[Job]:
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
    )


def check_places(jobs: Iterable[Job], *, overwrite: bool) -> None:
    """Raises `OutputError` or `InputError` for results that cannot be put, all of them, where they should go."""
    taken: set[Path] = set()
    for job in jobs:
        kind, path = split_place(job.place)
        if kind == "null":
            continue
        for place in (_sidecar_of(path), path):
            if place.absolute() in taken:
                raise InputError(f"{place}: two results would have this place")
            taken.add(place.absolute())
            check_place(place, overwrite=overwrite)


def _sidecar_of(path: Path) -> Path:
    return path.with_suffix(".json")


class Generator:
    """Makes jobs of one task with models that stay loaded."""

    def __init__(self, task: str, models: Models) -> None:
        self.task, self.models = task, models

    def settings(self, job: Job) -> dict[str, Settings]:
        """What a job comes to, by model; raises `InputError`."""
        if self.task == "text2world":
            return Text2World(self.models).settings(job.request)
        if self.task == "text2image":
            return {self.task: Text2Image(self.models).settings(job.request)}
        if job.input_path is None:
            raise InputError("--input_path: a picture or a video to go on from is missing")
        if not job.input_path.is_file():
            raise InputError(f"{job.input_path}: no such file")
        return {self.task: Video2World(self.models).settings(job.request, job.given_frames)}

    def run(self, job: Job, observer: Bars | Plain, *, overwrite: bool) -> Result:
        """Make the frames and put them in their place, with a sidecar. Everything is checked before any sampling."""
        settings = self.settings(job)
        last = list(settings.values())[-1]
        pixels = self.models.vae(list(settings)[-1]).spec.pixel_format
        video = VideoFormat(last.width, last.height, last.fps, last.num_frames, pixels)
        kind, path = split_place(job.place)
        if kind == "null":
            self._write(job, video, observer, overwrite)
            return Result(job.place, None, video, observer.timings)
        note = _sidecar_of(path)
        with staged_file(note, overwrite=overwrite) as part:
            self._write(job, video, observer, overwrite)
            facts = sidecar.describe(self.task, job.request, settings, self.models, observer.timings)
            given = job.input_path and {"path": str(job.input_path.absolute()), "frames": job.given_frames}
            facts["input"] = given
            text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
            part.write_bytes(text.encode("utf-8", "backslashreplace"))  # paths that are not UTF-8 as JSON's escapes
        return Result(job.place, note, video, observer.timings)

    def _write(self, job: Job, video: VideoFormat, observer: Bars | Plain, overwrite: bool) -> None:
        start = time.perf_counter()
        with observer, open_sink(job.place, video, overwrite=overwrite) as write:
            frames, record = self._frames(job, observer), self.models.execution.record
            for frame in frames if record is None else record.frames(frames):
                with observer.stage("write"):
                    write(frame)
        observer.timings.add("total", time.perf_counter() - start)

    def _frames(self, job: Job, observer: Bars | Plain) -> Iterable[Frame]:
        if self.task == "text2world":
            return Text2World(self.models)(job.request, observer)
        if self.task == "text2image":
            return [Text2Image(self.models)(job.request, observer)]
        from worldrt.runtime.sources.media import last_frames

        assert job.input_path is not None
        given = last_frames(job.input_path, job.given_frames)
        return Video2World(self.models)(job.request, given, observer)
