"""The flags about GPUs and engines: what they come to, and the mistakes that are found before anything is loaded."""

from __future__ import annotations

import pytest

from worldrt.engine.errors import InputError
from worldrt.engine.plans import BuildOptions, Range
from worldrt.runtime import engine_flags
from worldrt.runtime.cli import build_parser


def parse(*flags):
    return build_parser().parse_args(["text2world", *flags])


@pytest.mark.parametrize(
    ("flags", "device"),
    [
        ([], "cpu"),
        (["--backend", "torch"], "cpu"),
        (["--backend", "tensorrt"], "cuda"),
        (["--backend", "tensorrt_rtx", "--device", "cuda:1"], "cuda:1"),
        (["--device", "cuda"], "cuda"),
    ],
)
def test_engines_run_on_the_gpu_by_default(flags, device):
    args = parse(*flags)
    engine_flags.check(args)
    assert engine_flags.execution(args)["device"] == device


def test_what_the_flags_say():
    args = parse(
        *("--backend", "tensorrt", "--plan_cache", "plans", "--profile", "rows=1:2:3", "frames=4"),
        *("--optimization-level", "5", "--workspace_gb", "1.5", "--block_weights", "constants", "--strip_plan"),
        *("--gpu_memory", "12.5", "--offload"),
    )
    engine_flags.check(args)
    said = engine_flags.execution(args)
    engines = said["engines"]
    assert engines.profile == {"rows": Range(1, 2, 3), "frames": Range(4, 4, 4)}
    assert engines.build == BuildOptions(5, 1_500_000_000, strip=True)
    assert (str(engines.plan_cache), engines.block_weights) == ("plans", "constants")
    assert (said["gpu_memory_gb"], said["offload"]) == (12.5, True)


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ([], "auto"),
        (["--use_cuda_graphs"], "on"),
        (["--use-cuda-graphs", "off"], "off"),
        (["--use_cuda_graphs", "--prompt", "x"], "on"),
    ],
)
def test_the_official_spelling_of_cuda_graphs_is_on(flags, mode):
    assert engine_flags.execution(parse("--device", "cuda", *flags))["cuda_graphs"] == mode


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--optimization_level", "5"], "--optimization_level: it is about engines; the backend is onnxruntime"),
        (["--profile", "rows=1"], "--profile: it is about engines"),
        (["--backend", "tensorrt", "--device", "cpu"], "tensorrt runs on NVIDIA GPUs, got cpu; say --device cuda"),
        (["--gpu_memory", "8"], "--gpu_memory: the device is cpu"),
        (["--gpu_memory", "0", "--device", "cuda"], "--gpu_memory: expected a number of GB above 0, got 0"),
        (["--gpu_memory", "nan", "--device", "cuda"], "--gpu_memory: expected a number of GB above 0, got nan"),
        (["--backend", "tensorrt", "--workspace_gb", "-1"], "--workspace_gb: expected a number of GB above 0, got -1"),
    ],
)
def test_flags_that_cannot_be_meant(flags, text):
    with pytest.raises(InputError, match=text):
        engine_flags.check(parse(*flags))


@pytest.mark.parametrize("flags", [["--profile", "rows"], ["--profile", "rows=3:2:1"]])
def test_profiles_that_cannot_be_read(flags):
    with pytest.raises(InputError):
        engine_flags.execution(parse("--backend", "tensorrt", *flags))
