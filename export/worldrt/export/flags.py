"""The flags of `trt-export`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from worldrt.engine import plugin
from worldrt.engine.cli import Parser
from worldrt.export import engine_flags, world_flags
from worldrt.export.quantize import flags as quantize_flags

FAMILIES = "worldrt.export.families"
TASKS = ("text2image", "video2world", "world")
EPILOG = """\
examples:
  trt-export --model nano
  trt-export --model 2B --checkpoint /models/Cosmos-Predict2-2B-Video2World -o bundles/2B
  trt-export --model 14B --checkpoint /models --task video2world --resolution 480 --fps 10
  trt-export --model 2B --checkpoint /models --natten
  trt-export --model matrix-stage4 --checkpoint /models --control_sentences /src/matrix
  trt-export --model opendwm --checkpoint /models/stable-diffusion-3.5-medium --dit_path ctsd_35_xs.pth --task world
  trt-export --bundle bundles/2B --backend tensorrt_rtx --compute_capability 8.9 12.0
  trt-export --bundle bundles/2B --backend tensorrt_rtx --check
  trt-export --bundle bundles/2B --quantize fp8 -o bundles/2B-fp8
  trt-export cache --help           engine plans that were built before: ls, rm, verify
"""


def build_parser() -> Parser:
    """All flags of `trt-export`."""
    p = Parser(
        prog="trt-export",
        description="Export a checkpoint of Cosmos-Predict2, The Matrix or OpenDWM to a bundle of ONNX graphs (weights "
        "are not copied), and build engine plans of a bundle.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = p.add_argument_group("what")
    source = what.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", choices=models(), help="those of nano need no checkpoint, they make one")
    source.add_argument("--bundle", type=Path, metavar="DIR", help="one that is there; for --backend, --quantize")
    what.add_argument("--task", default="all", choices=(*TASKS, "all"), help="default: all that the checkpoint holds")
    what.add_argument("--components", nargs="+", default=[], metavar="NAME", help="export only these: vae, text, ...")
    what.add_argument("--resolution", default="720", choices=("480", "720"), help="which official video weights")
    what.add_argument("--fps", type=int, default=16, choices=(10, 16), help="which official video weights")
    what.add_argument("--natten", action="store_true", help="the sparse video weights: 720p, 16:9, of 2B and 14B")
    what.add_argument("--distilled", action="store_true", help="the text2image weights of four steps, without guidance")
    places = p.add_argument_group("where")
    places.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="a diffusers pipeline, official files, or a hub cache"
    )
    places.add_argument(
        "--dit_path", type=Path, metavar="FILE", help="the transformer's weights, instead of those found"
    )
    places.add_argument(
        "--load_ema", action="store_true", help="take the averaged weights (net_ema.) of an official file"
    )
    places.add_argument(
        "--convert_to", type=Path, metavar="DIR", help="where .pt files are converted to; default: beside them"
    )
    places.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="default: bundles/MODEL, with the task if one is given"
    )
    places.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    how = p.add_argument_group("how")
    how.add_argument(
        "--form", default="auto", choices=("auto", "whole", "block"), help="auto: block from 1 B parameters"
    )
    how.add_argument(
        "--attention_cut",
        action="store_true",
        help="block form with attention as a graph of its own, for --cp_mode ulysses of trt-run",
    )
    how.add_argument("--precision", default="auto", choices=("auto", "fp32", "fp16", "bf16"), help="auto: as stored")
    how.add_argument(
        "--rope_dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16: as official pipelines round"
    )
    how.add_argument("--pixel_format", default="rgb24", choices=("rgb24", "nv12", "yuv420p"), help="of decoded frames")
    how.add_argument("--seed", type=int, help="nano models: random weights of this seed, and not trained ones")
    then = p.add_argument_group("and then")
    then.add_argument(
        "--verify", action=argparse.BooleanOptionalAction, help="compare with torch; default: small models"
    )
    then.add_argument(
        "--torch_program", action=argparse.BooleanOptionalAction, help="save torch programs; default: small models"
    )
    then.add_argument("--full_hash", action="store_true", help="also hash the weight files whole")
    then.add_argument("--jobs", type=int, default=_jobs(), help="graphs made side by side")
    then.add_argument("--json", action="store_true", help="print the report as JSON")
    world_flags.add(p)
    quantize_flags.add(p)
    engine_flags.add(p)
    return p


def family_of(model: str) -> str:
    """The family that a model belongs to."""
    return next(family for family, names in _families().items() if model in names)


def models() -> tuple[str, ...]:
    """All that families say they have."""
    return tuple(model for names in _families().values() for model in names)


def _families() -> dict[str, tuple[str, ...]]:
    """Names of models by family; the packages of families say them, and import nothing for it."""
    return {family: plugin.load(FAMILIES, family).MODELS for family in plugin.names(FAMILIES)}


def _jobs() -> int:
    """One for every CPU, up to 4: each worker holds half a gigabyte."""
    return max(1, min(4, os.cpu_count() or 1))
