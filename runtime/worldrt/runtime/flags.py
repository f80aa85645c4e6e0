"""The flags of `trt-run`: those of the official scripts, and our own."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldrt.engine.cli import Parser
from worldrt.engine.errors import InputError
from worldrt.runtime import engine_flags

TASKS = {
    "text2world": "a video from a prompt: a picture first, then the video that goes on from it",
    "text2image": "a picture from a prompt",
    "video2world": "a video that goes on from a picture or from the end of a video",
}
MAX_THREADS = 1024
_DEFAULT_PLACE = {"text2image": "output/generated_image.png"}


def add_task(commands: Any, task: str, defaults: Mapping[str, Any]) -> None:
    """The subcommand of one task; `defaults` by name of the parsed argument."""
    parser: Parser = commands.add_parser(task, help=TASKS[task], description=TASKS[task])
    _request(parser, task)
    _output(parser, task)
    _model(parser)
    engine_flags.add(parser)
    _official(parser)
    parser.set_defaults(verb=task, **defaults)


def _request(parser: Parser, task: str) -> None:
    group = parser.add_argument_group("what to make")
    add = group.add_argument
    add("--prompt", default="", help="what the result shows")
    add("--negative_prompt", help="what it should not show; by default a general text for video, nothing for a picture")
    add("--seed", type=int, default=0)
    add(
        "--guidance",
        type=float,
        help="g of x0 = c + g (c - u); the model's own by default (7 for video, 4 for pictures)",
    )
    add("--aspect_ratio", help="1:1, 4:3, 3:4, 16:9 (default) or 9:16")
    add("--resolution", help="480 or 720 (default), where the model has both")
    add("--width", type=int, help="pixels, instead of aspect ratio and resolution; a multiple of 16")
    add("--height", type=int, help="pixels; a multiple of 16")
    if task != "text2image":
        add("--fps", type=int, help="16 (default) or 10")
        add("--num_frames", type=int, help="1 more than a multiple of 4; the model's own by default")
    if task == "video2world":
        add("--input_path", type=Path, help="a picture or a video; the last frames of a video are taken")
        add("--num_conditional_frames", type=int, default=1, choices=(1, 5), help="how many frames are given")
    add("--steps", type=int, help="sampler steps; the model's own by default (35)")
    add("--solver", help="ab2 (default) or euler")
    add("--sigma_max", type=float, help="noise level at the start")
    add("--sigma_min", type=float, help="noise level at the end")


def _output(parser: Parser, task: str) -> None:
    add = parser.add_argument_group("where it goes").add_argument
    place = _DEFAULT_PLACE.get(task, "output/generated_video.mp4")
    add("--save_path", default=place, help=f"name.mp4, name.png, png:FOLDER or null: (default {place})")
    add("--batch_input_json", type=Path, help="a list of {prompt, output_video or output_image, input_video}")
    add("--overwrite", action="store_true", help="replace what is there")
    add("--from_sidecar", type=Path, metavar="FILE", help="repeat the run that a sidecar describes; other flags win")
    add("--record_inputs", type=Path, metavar="DIR", help="keep the denoiser's inputs and the frames, to quantise by")
    add("--record_steps", type=int, default=8, help="how many steps are kept of a run")
    add("--benchmark", action="store_true", help="run four times and print the mean of the last three")
    add("--json", action="store_true", help="print the result as JSON")
    add("--quiet", action="store_true", help="no progress")


def _model(parser: Parser) -> None:
    add = parser.add_argument_group("which model, and how it runs").add_argument
    add("--model_size", help="a bundle of the folder bundles, or of $WORLDRT_BUNDLES: 2B by default, or the only one")
    add("--bundle", action="append", default=[], metavar="DIR", help="a bundle; twice where two hold one model each")
    add("--checkpoint", action="append", default=[], metavar="DIR", help="where the weights of a bundle lie now")
    add("--lora", action="append", default=[], metavar="FILE[:SCALE]", help="a LoRA of the model; several add up")
    add("--backend", default="onnxruntime", help="onnxruntime, tensorrt, tensorrt_rtx, torch or null")
    add("--device", help="cpu, cuda or cuda:1; default: cuda for tensorrt and tensorrt_rtx, else cpu")
    add("--threads", type=int, default=0, help="threads of onnxruntime or torch; 0 for their own choice")
    add("--cfg", choices=("batched", "sequential"), default="batched", help="sequential needs less memory")
    add("--offload_text_encoder", action="store_true", help="let the text encoder go once the prompt is encoded")


def _official(parser: Parser) -> None:
    """Flags of the official scripts that have another place here, no effect, or no counterpart yet."""
    group = parser.add_argument_group("flags of the official scripts")
    for flag in ("--dit_path", "--dit_path_text2image", "--dit_path_video2world"):
        group.add_argument(flag, default="", metavar="PLACE", help="post-trained weights: .safetensors, or a bundle")
    for flag in ("disable_guardrail", "offload_guardrail", "disable_prompt_refiner", "offload_prompt_refiner"):
        group.add_argument(f"--{flag}", action="store_true", help="accepted; there is none in this version")
    group.add_argument("--num_gpus", type=int, default=1, help="1 in this version")
    group.add_argument("--distill_steps", type=int, default=0, help="0 in this version")
    for flag in ("load_ema", "downcast_text_encoder", "natten", "use_fast_tokenizer"):
        group.add_argument(f"--{flag}", action="store_true", help="not here; says what to do instead")


_ELSEWHERE = {
    "load_ema": "EMA weights are chosen when exporting: trt-export --load_ema",
    "downcast_text_encoder": "precision is chosen when exporting; export a bundle with the precision that you want",
    "natten": "this version has no sparse attention; leave the flag out and use the dense checkpoint",
    "use_fast_tokenizer": "this version has no such image tokenizer; leave the flag out",
}


def check_official(args: argparse.Namespace) -> None:
    """Raises `InputError` for a flag that asks for what this version does not have; warns of one without effect."""
    engine_flags.check(args)
    for flag, instead in _ELSEWHERE.items():
        if getattr(args, flag):
            raise InputError(f"--{flag}: {instead}")
    if not 0 <= args.threads <= MAX_THREADS:
        raise InputError(f"--threads: expected 0 to {MAX_THREADS}, got {args.threads}")
    if args.num_gpus != 1:
        raise InputError(f"--num_gpus: this version runs on one device, got {args.num_gpus}")
    if args.distill_steps:
        raise InputError("--distill_steps: this version has no distilled sampler; leave the flag out")
