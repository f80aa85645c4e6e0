"""`docs/cosmos.md`: every command of the page runs, on the nano model; the table names every official flag, truly."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from worldrt.export.cli import build_parser as export_parser
from worldrt.runtime.cli import build_parser, main
from worldrt.runtime.sinks.base import VideoFormat, open_sink

from ..fakes.endpoint import Reply, completion, serve

PAGE = (Path(__file__).parents[2] / "docs" / "cosmos.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## The official commands")[2].partition("## The official flags")[0]
COMMANDS = [text.strip() for text in re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)]
BATCHES = dict(re.findall(r"`(assets/\S+\.json)`[^`]*```json\n(.*?)```", SECTION, re.DOTALL))
TABLE = re.findall(r"^\| `--(\w+)` \| (.*) \|$", PAGE.partition("## The official flags")[2], re.MULTILINE)
SMALL = ["--width", "48", "--height", "32", "--quiet"]

# The flags of the official scripts at commit 661da477, by script.
COMMON = {"model_size", "prompt", "negative_prompt", "aspect_ratio", "seed", "save_path", "load_ema",
          "disable_guardrail"}  # fmt: skip
OF_VIDEO = COMMON | {"guidance", "num_gpus", "disable_prompt_refiner"}
OF_RUN = {"batch_input_json", "benchmark", "use_cuda_graphs", "offload_guardrail"}
BOTH_STAGES = {"dit_path_text2image", "dit_path_video2world", "resolution", "fps", "natten", "offload_prompt_refiner"}
ENCODER = {"offload_text_encoder", "downcast_text_encoder"}
INPUT = {"input_path", "num_conditional_frames", "dit_path"}
OFFICIAL = {
    "text2image": ("text2image", COMMON | OF_RUN | {"distill_steps", "dit_path", "use_fast_tokenizer"}),
    "text2world": ("text2world", OF_VIDEO | OF_RUN | BOTH_STAGES | ENCODER | {"distill_steps"}),
    "video2world": (
        "video2world", OF_VIDEO | OF_RUN | ENCODER | INPUT | {"resolution", "fps", "natten", "offload_prompt_refiner"}
    ),
    "video2world_lvg": ("video2world", OF_VIDEO | INPUT | {"num_chunks", "batch_input_json"}),
    "video2video_sdedit": (
        "text2world",
        OF_VIDEO | OF_RUN | BOTH_STAGES | {"input_video_path", "text2image_edit_strength", "video2world_edit_strength"},
    ),
    "video2world_bestofn": (
        "bestofn",
        (OF_VIDEO | INPUT | ENCODER | {"resolution", "fps", "offload_guardrail", "offload_prompt_refiner"})
        | {"gr00t_variant", "prompt_prefix", "num_generations", "skip_generation", "num_critic_trials"}
        | {"checkpoint_dir"},
    ),
}  # fmt: skip


def film(place, frames, height=48, width=64):
    y, x = np.mgrid[:height, :width]
    with open_sink(place, VideoFormat(width, height, 16, frames)) as write:
        for i in range(frames):
            write(np.stack([(x * 3 + i * 5) % 256, y * 4, (x + y + i) % 256], -1).astype(np.uint8))


@pytest.fixture
def here(nano, nano_by_torch, tmp_path, monkeypatch):
    """A folder with the inputs of the guides, the nano model under the names of trained ones, and a critic."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(tmp_path / "bundles"))
    for place in ("assets/video2world", "assets/video2world_lvg", "assets/text2world", "assets/text2image"):
        os.makedirs(place)
    for place in ("video2world/input0.jpg", "video2world/input1.jpg", "video2world_lvg/example_input.jpg"):
        film(f"assets/{place}", 1)
    film("assets/video2world/input3.mp4", 12)
    film("output/my_existing_videos/there.mp4", 5)
    for place, text in BATCHES.items():
        Path(place).write_text(text, encoding="utf-8")
    make_bundles(nano.folder, tmp_path / "bundles")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as fake:
        for who in ("CRITIC", "REFINER"):
            monkeypatch.setenv(f"WORLDRT_{who}_URL", fake.url)
            monkeypatch.setenv(f"WORLDRT_{who}_MODEL", "cosmos-reason1")
        fake.replies = [Reply(completion("<think>A bus stands there.</think>\n<answer>No</answer>"))]
        yield fake


def make_bundles(nano, folder):
    """`2B` and `14B` are nano; `2B-natten` is it with windows that leave nothing out."""
    folder.mkdir()
    for name in ("2B", "14B"):
        (folder / name).symlink_to(nano)
    shutil.copytree(nano, folder / "2B-natten")
    manifest = json.loads((nano / "bundle.json").read_text())
    manifest["weights"]["root"] = str((nano / manifest["weights"]["root"]).resolve())
    del manifest["denoisers"]["text2image"]
    video = manifest["denoisers"]["video2world"]
    video["sizes"] = {"any": {"16:9": [48, 32]}}
    video["sparse"] = {"grid": [2, 3], "windows": ["dense"] * video["blocks"]}
    video["graphs"]["block_dense"] = video["graphs"].pop("block")
    (folder / "2B-natten" / "bundle.json").write_text(json.dumps(manifest))


def arguments_of(command):
    program, *arguments = shlex.split(command.replace("\\\n", " "), comments=True)
    assert program == "trt-run"
    return arguments


@pytest.mark.parametrize("command", COMMANDS, ids=[re.sub(r"[\s\\]+", " ", text)[8:90] for text in COMMANDS])
def test_every_command_of_the_page_runs(here, command):
    arguments = arguments_of(command)
    task = arguments[0]
    small = [*SMALL, "--steps", "1", *([] if task == "text2image" else ["--num_frames", "9"])]
    if "--skip_generation" in arguments:
        small = ["--quiet"]
    args = build_parser().parse_args(arguments)
    assert main([*arguments, *small]) == 0
    for place in places_of(args):
        with av.open(str(place)) as container:
            frames = sum(1 for _ in container.decode(video=0))
        overlap = args.num_conditional_frames if task == "video2world" else 1
        chunks = 1 if task == "text2image" else args.num_chunks or max(1, len(args.chunk_prompts))
        expected = 1 if task == "text2image" else 9 + (chunks - 1) * (9 - overlap)
        assert frames == expected, place
        assert json.loads(place.with_suffix(".json").read_text())["task"] == task
    if task == "bestofn":
        found = os.listdir(args.save_path)
        count = 1 if args.skip_generation else args.num_generations
        assert len([name for name in found if name.endswith(".html")]) == count
    if "with_prompt_refiner" in args.save_path:
        note = json.loads(Path(args.save_path).with_suffix(".json").read_text())
        assert note["refined_prompt"] and len(here.asked) == 1


def places_of(args):
    """The results of a command."""
    if args.verb == "bestofn":
        return []
    if args.batch_input_json is None:
        return [Path(args.save_path)]
    items = json.loads(args.batch_input_json.read_text())
    return [Path(item["output_image" if args.verb == "text2image" else "output_video"]) for item in items]


def test_the_page_has_all_kinds_of_commands():
    tasks = [arguments_of(command)[0] for command in COMMANDS]
    assert [tasks.count(task) for task in ("text2image", "text2world", "video2world", "bestofn")] == [2, 4, 9, 2]
    assert len(BATCHES) == 3


def flags_of(task):
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action.choices, dict))
    return set(commands.choices[task]._option_string_actions)


@pytest.mark.parametrize("script", OFFICIAL)
def test_every_official_flag_is_in_the_table_and_what_is_called_the_same_is_there(script):
    task, official = OFFICIAL[script]
    table, ours = dict(TABLE), flags_of(task)
    assert official <= set(table)
    same = {flag for flag in official if table[flag].startswith("same")}
    assert {f"--{flag}" for flag in same} <= ours
    for flag in official - same:
        assert f"--{flag}" in ours, f"--{flag} should say what to do instead"
        if "trt-export" in table[flag]:
            named = re.findall(r"--(\w+)", table[flag].partition("trt-export")[2].partition("`")[0])
            assert {f"--{name}" for name in named} <= set(export_parser()._option_string_actions)


def test_the_table_names_no_flag_that_is_not_official():
    assert set(dict(TABLE)) == set().union(*(flags for _, flags in OFFICIAL.values()))


@pytest.mark.parametrize(
    ("task", "flag"),
    [
        ("video2world", ["--load_ema"]),
        ("video2world", ["--downcast_text_encoder"]),
        ("text2image", ["--use_fast_tokenizer"]),
        ("bestofn", ["--gr00t_variant", "gr1"]),
    ],
)
def test_a_flag_that_is_elsewhere_says_where(here, capsys, task, flag):
    assert main([task, "--prompt", "x", *flag]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {flag[0]}: ") and len(line) > 50


def test_a_prefix_stands_before_every_prompt(here):
    prefix = ("--prompt_prefix", "The robot arm works. ", *SMALL, "--steps", "1")
    assert main(["text2image", "--prompt", "A cup.", *prefix, "--save_path", "a.png"]) == 0
    items = [{"prompt": "A pen.", "output_image": "b.png"}]
    Path("batch").write_text(json.dumps(items))
    assert main(["text2image", "--batch_input_json", "batch", *prefix]) == 0
    prompts = [json.loads(Path(name).read_text())["request"]["prompt"] for name in ("a.json", "b.json")]
    assert prompts == ["The robot arm works. A cup.", "The robot arm works. A pen."]
    assert main(["text2image", "--from_sidecar", "a.json", "--save_path", "c.png", "--quiet"]) == 0
    assert json.loads(Path("c.json").read_text())["request"]["prompt"] == prompts[0]
    assert Path("a.png").read_bytes() == Path("c.png").read_bytes()
    film = ("--chunk_prompt", "A cup.", "--chunk_prompt", "A pen.", "--num_frames", "5", "--save_path", "d.mp4")
    assert main(["text2world", *film, *prefix]) == 0
    assert json.loads(Path("d.json").read_text())["request"]["chunk_prompts"] == prompts
