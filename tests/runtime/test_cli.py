"""`trt-run`, in this process and in its own: results, one-line errors, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from worldrt.runtime.benchmark import measured
from worldrt.runtime.cli import build_parser, main
from worldrt.runtime.results import Result
from worldrt.runtime.sinks.base import VideoFormat
from worldrt.runtime.timing import Timings

PROMPT = ("--prompt", "a red car")
SMALL = (*PROMPT, "--steps", "2", "--num_frames", "5", "--width", "48", "--height", "32", "--quiet")


@pytest.fixture
def here(nano, tmp_path, monkeypatch):
    """An empty folder to work in, beside the folder of bundles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.folder.parent))
    return tmp_path


@pytest.fixture
def computing(here, nano_by_torch):
    return here


def run(*arguments):
    return main([str(argument) for argument in arguments])


def refused(capsys, text, *arguments, code=2):
    """One line on stderr with this text, the exit code, and nothing new in the folder."""
    before = set(os.listdir("."))
    capsys.readouterr()
    assert run(*arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and text in lines[0], lines
    assert set(os.listdir(".")) == before


def test_text2world(computing, capsys):
    assert run("text2world", *SMALL, "--save-path", "a/out.mp4", "--fps", "10", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["frames"], result["width"], result["height"], result["fps"]) == (5, 48, 32, 10)
    with av.open("a/out.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.width, stream.height, stream.average_rate) == (5, 48, 32, 10)
    assert sorted(os.listdir("a")) == ["out.json", "out.mp4"]
    assert "total" in result["timings_s"] and "video2world: sampling" in result["timings_s"]


def test_a_sidecar_repeats_its_run(computing, nano, capsys):
    assert run("text2world", *SMALL, "--seed", "5", "--solver", "euler", "--save_path", "png:one") == 0
    facts = json.loads((computing / "one.json").read_text())
    assert facts["request"]["seed"] == 5 and facts["settings"]["video2world"]["sampler"] == "rectified_flow_euler"
    assert facts["settings"]["text2image"]["guidance"] == facts["settings"]["video2world"]["guidance"] == 1.0
    (bundle,) = facts["bundles"]
    assert bundle["variant"] == "nano" and len(bundle["weights"]) == 4 and bundle["graphs"]["video2world/block"]
    assert facts["execution"]["kernels"] in ("native", "numpy") and facts["versions"]["numpy"] == np.__version__
    os.environ["WORLDRT_BUNDLES"] = "nowhere"  # it knows where its bundle was
    assert run("text2world", "--from_sidecar", "one.json", "--save_path", "png:two", "--quiet") == 0
    assert run("text2world", "--from_sidecar", "one.json", "--save_path", "png:three", "--seed", "6", "--quiet") == 0
    frames = {name: [p.read_bytes() for p in sorted((computing / name).iterdir())] for name in ("one", "two", "three")}
    assert frames["one"] == frames["two"] != frames["three"]
    capsys.readouterr()
    refused(capsys, "run of text2world", "text2image", "--from_sidecar", "one.json")
    (computing / "one.json").write_text("[]")
    refused(capsys, "not a sidecar", "text2world", "--from_sidecar", "one.json")


def test_quality_reaches_the_file(computing):
    made = []
    for quality in ("10", "95"):
        flags = ("--steps", "1", "--quiet", "--overwrite", "--quality", quality)
        assert run("text2image", *PROMPT, *flags, "--save_path", "a.jpg") == 0
        made.append((computing / "a.jpg").stat().st_size)
    assert made[0] < made[1]


def test_a_sidecar_of_another_bundle_is_said(computing, capsys):
    run("text2image", *PROMPT, "--steps", "1", "--save_path", "a.png", "--quiet")
    facts = json.loads((computing / "a.json").read_text())
    facts["bundles"][0]["weights"]["vae/diffusion_pytorch_model.safetensors"]["header_sha256"] = "0" * 64
    (computing / "a.json").write_text(json.dumps(facts))
    capsys.readouterr()
    assert run("text2image", "--from_sidecar", "a.json", "--save_path", "b.png", "--quiet") == 0
    assert "not the one of the sidecar" in capsys.readouterr().err
    assert (computing / "a.png").read_bytes() == (computing / "b.png").read_bytes()


def test_video2world_from_a_picture_and_from_a_video(computing):
    assert run("text2image", *PROMPT, "--steps", "1", "--save_path", "start.png", "--quiet") == 0
    assert run("video2world", *SMALL, "--input_path", "start.png", "--save_path", "one.mp4") == 0
    more = ("--num_frames", "9", "--num_conditional_frames", "5", "--input_path", "one.mp4")
    assert run("video2world", *SMALL, *more, "--save_path", "two.mp4") == 0
    assert json.loads((computing / "two.json").read_text())["input"] == {
        "path": str(computing / "one.mp4"),
        "frames": 5,
        "reader": "media",
        "sha256": hashlib.sha256((computing / "one.mp4").read_bytes()).hexdigest(),
    }


def test_an_input_that_is_no_longer_that_of_the_sidecar_is_said(computing, capsys):
    for name, seed in (("start.png", "0"), ("other.png", "1")):
        made = ("text2image", *PROMPT, "--steps", "1", "--seed", seed, "--save_path", name, "--quiet")
        assert run(*made) == 0
    assert run("video2world", *SMALL, "--input_path", "start.png", "--save_path", "one.mp4") == 0
    again = ("video2world", "--from_sidecar", "one.json", "--quiet", "--save_path")
    capsys.readouterr()
    assert run(*again, "two.mp4", "--input_path", "other.png") == 0
    assert "warning" not in capsys.readouterr().err
    os.replace("other.png", "start.png")
    assert run(*again, "three.mp4") == 0
    assert "start.png is not as it was for the sidecar" in capsys.readouterr().err


def test_benchmark(here, capsys):
    flags = ("text2world", *SMALL, "--backend", "null", "--save_path", "out.mp4")
    assert run(*flags, "--benchmark") == 0
    told = capsys.readouterr().out
    assert "seconds of 3 runs" in told and "video2world: decode" in told and "out.mp4" in told and "p99" in told
    assert sorted(os.listdir(here)) == ["out.json", "out.mp4"]
    refused(capsys, "exists", *flags, "--benchmark")
    refused(capsys, "--benchmark: expected 1 to", *flags, "--benchmark", "0")
    assert run(*flags, "--benchmark", "5", "--overwrite", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["benchmark"]["runs"] == 5 and data["benchmark"]["stages_s"]["total"]["count"] == 5
    assert data["benchmark"]["stages_s"]["text2image: text"]["min"] > 1e-4  # encoded in every run
    step = data["benchmark"]["steps_s"]["video2world: sampling"]
    assert step["count"] == 5 * 3 and 0 <= step["min"] <= step["p50"] <= step["p90"] <= step["p99"] <= step["max"]
    assert data["timings_s"]["total"] == data["benchmark"]["stages_s"]["total"]["mean"]


def test_statistics_are_those_of_the_runs_that_count():
    """Against numbers done by hand; the first run is left out."""
    seconds = iter([100.0, 1.0, 2.0, 3.0, 4.0, 5.0])

    def make(again):
        timings = Timings({"total": next(seconds)}, {"sampling": [0.5, 1.5], "decode": [9.0]})
        return Result("a.mp4", None, VideoFormat(16, 16, 16, 5), timings)

    found = measured(make, 5)["benchmark"]
    assert found["stages_s"]["total"] == {
        "count": 5, "mean": 3.0, "p50": 3.0, "p90": 4.6, "p99": 4.96, "min": 1.0, "max": 5.0
    }  # fmt: skip
    assert (
        list(found["steps_s"]) == ["sampling"]
        and found["steps_s"]["sampling"]["count"] == 10
        and found["steps_s"]["sampling"]["mean"] == 1.0
    )


BAD = [
    ("prompt: it is empty", ["--prompt", "  "]),
    ("prompt: it is empty", ["--prompt="]),
    ("10000 words", ["--prompt", "word " * 10000]),
    ("multiple of 16 pixels, got 50", ["--width", "50"]),
    ("multiple of 4, got 8", ["--num_frames", "8"]),
    ("aspect_ratio '2:1'", ["--aspect_ratio", "2:1"]),
    ("fps", ["--fps", "11"]),
    ("seed", ["--seed", "-1"]),
    ("sampler 'heun'", ["--solver", "heun"]),
    ("onnxruntime", ["--backend", "nothing"]),
    ("device 'tpu'", ["--device", "tpu"]),
    (".mp4", ["--save_path", "out.gif"]),
    ("--quality: expected 1 to 100, got 101", ["--quality", "101"]),
    ("cannot be written", ["--save_path", "/proc/none/out.mp4"]),
    ("no bundle here", ["--bundle", "."]),
    ("no bundle of size '14B'", ["--model_size", "14B"]),
    ("trt-export --model 14B", ["--model_size", "14B"]),
    ("--num_gpus: expected 1 to 1024, got 0", ["--num_gpus", "0"]),
    ("2 x 2 or 1 x 4; got any x 3", ["--num_gpus", "4", "--context_parallel", "3"]),
    ("leave --num_gpus out", ["--num_gpus", "2", "--record_inputs", "in"]),
    ("has a GPU of its own", ["--num_gpus", "2", "--device", "cuda:1"]),
    ("trt-export --load_ema", ["--load_ema"]),
    ("expected a bundle", ["--dit_path", "model.pt"]),
    ("step_cache: expected 0 (off) to 10", ["--step_cache=-1"]),
    ("0 <= LOW < HIGH", ["--guidance_interval", "30", "0.3"]),
    ("expected a cosine", ["--adaptive_guidance", "1.5"]),
    ("--batch_size: expected 1 to 64, got 0", ["--batch_size", "0"]),
    ("--record_inputs", ["--record_inputs", "in", "--step_cache", "0.1"]),
    ("weight file is missing", ["--checkpoint", "."]),
    ("no sidecar.json", ["--from_sidecar", "no sidecar.json"]),
    ("no batch.json", ["--batch_input_json", "no batch.json"]),
    ("steps: expected 1 to 10000", ["--steps", "99999999999"]),
    ("sigma_max", ["--sigma_max", "1e300"]),
    ("sigma_max", ["--sigma_max", "nan"]),
    ("guidance", ["--guidance", "inf"]),
    ("multiple of 16 pixels, got -16", ["--width=-16"]),
    ("of memory", ["--width", "1600000", "--height", "1600000"]),
    ("of memory", ["--width", f"16{'0' * 20}"]),
    ("of memory", ["--num_frames", "1000000001"]),
    ("not UTF-8", ["--prompt", "caf\udce9"]),
    ("not UTF-8", ["--negative_prompt", "caf\udce9"]),
    ("--threads: expected 0 to 1024, got -1", ["--threads=-1"]),
    ("--threads", ["--threads", "99999999999"]),
    ("expected one for each of 1 bundle(s), got 2", ["--checkpoint", ".", "--checkpoint", "."]),
    ("expected a name after png:", ["--save_path", "png:"]),
    ("too long", ["--save_path", f"{'a' * 300}.mp4"]),
]


@pytest.mark.parametrize(("text", "arguments"), BAD, ids=lambda value: str(value)[:30])
def test_mistakes(computing, capsys, text, arguments):
    refused(capsys, text, "text2world", *SMALL, *arguments)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", None),
        ("execution", 5),
        ("bundles", None),
        ("bundles", [5]),
        ("bundles", [{"folder": 5, "weight_root": "."}]),
        ("input", 5),
        ("request", {"prompt": 5}),
    ],
)
def test_bad_sidecars(here, capsys, key, value):
    assert run("text2world", *SMALL, "--backend", "null", "--save_path", "a.mp4") == 0
    facts = json.loads((here / "a.json").read_text()) | {key: value}
    (here / "a.json").write_text(json.dumps(facts))
    refused(capsys, f"not a sidecar of worldrt: {key}", "text2world", "--from_sidecar", "a.json")


def test_a_reader_that_goes_away(here):
    code = "import sys; from worldrt.runtime.cli import main; sys.exit(main(['doctor', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=60) == 1
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "No space left" in done.stderr


def test_names_that_are_not_utf8(here, capsys):
    name = os.fsdecode(b"caf\xe9")
    arguments = (*SMALL, "--backend", "null")
    assert run("text2image", *PROMPT, *arguments[-2:], "--steps", "1", "--save_path", f"{name}.png", "--quiet") == 0
    assert (
        run("video2world", *arguments, "--input_path", f"{name}.png", "--save_path", f"{name}.mp4", "--overwrite") == 0
    )
    again = ("--save_path", "again.mp4", "--quiet")
    assert run("video2world", "--from_sidecar", f"{name}.json", *again) == 0


def test_a_folder_is_no_file(computing, capsys):
    (computing / "out.mp4").mkdir()
    refused(capsys, "it is a folder", "text2world", *SMALL, "--save_path", "out.mp4", "--overwrite")


def test_a_resolution_where_there_is_one(computing, capsys):
    refused(capsys, "leave --resolution out", "text2world", *PROMPT, "--resolution", "720")


@pytest.mark.parametrize("flags", [("--promt", "x"), ("--distill_steps", "5"), ("--benchmark", "x")])
def test_unknown_flags_and_values(capsys, flags):
    with pytest.raises(SystemExit) as stop:
        run("text2world", *flags)
    assert stop.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_flags_of_the_official_scripts_are_accepted(here):
    harmless = ("disable_guardrail", "offload_guardrail", "disable_prompt_refiner", "offload_prompt_refiner")
    flags = [f"--{flag}" for flag in (*harmless, "offload_text_encoder")]
    assert run("text2world", *SMALL, *flags, "--num_gpus", "1", "--backend", "null", "--save_path", "a.mp4") == 0


def test_what_exists_is_kept(computing, capsys):
    for name in ("out.mp4", "out.json"):
        (computing / name).write_text("precious")
        refused(capsys, f"{name} exists", "text2world", *SMALL, "--save_path", "out.mp4")
        assert (computing / name).read_text() == "precious"
        (computing / name).unlink()


def test_a_tampered_bundle(computing, nano, capsys):
    shutil.copytree(nano.folder, computing / "mine")
    with (computing / "mine" / "vae" / "decode_next.onnx").open("a") as file:
        file.write("!")
    refused(capsys, "changed since the export", "text2world", *SMALL, "--bundle", "mine")


def tampered(folder, change):
    """A copy of a bundle with another `bundle.json`."""
    shutil.copytree(folder, "mine", dirs_exist_ok=True)
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    with open("mine/bundle.json", "w") as file:
        json.dump(manifest, file)


@pytest.mark.parametrize(("blocks", "text"), [(3, "more than the 3 blocks"), (6, "uses tensor")])
def test_a_wrong_number_of_blocks(computing, nano, capsys, blocks, text):
    """Of a denoiser in block form: fewer would leave layers out, and make another video."""
    tampered(nano.folder, lambda manifest: manifest["denoisers"]["video2world"].update(blocks=blocks))
    refused(capsys, text, "text2world", *SMALL, "--bundle", "mine")


def test_swapped_denoisers(computing, nano, capsys):
    def swap(manifest):
        both = manifest["denoisers"]
        both["text2image"], both["video2world"] = both["video2world"], both["text2image"]

    tampered(nano.folder, swap)
    refused(capsys, "text2image: expected a denoiser with the conditions []", "text2world", *SMALL, "--bundle", "mine")


def test_a_full_disk(computing, capsys, monkeypatch):
    """The disk fills up while frames are written."""
    import errno

    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    refused(capsys, "the disk is full", "text2world", *SMALL, "--save_path", "png:frames")


def test_which_bundle(nano, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLDRT_BUNDLES", raising=False)
    monkeypatch.setattr("worldrt.engine.packaged.PLACE", tmp_path)  # nothing comes with the package
    arguments = ("text2image", *PROMPT, "--steps", "1", "--backend", "null", "--quiet", "--overwrite")
    refused(capsys, "trt-export --model nano -o bundles/nano", *arguments)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "nano").symlink_to(nano.folder)
    assert run(*arguments) == 0 and (tmp_path / "output" / "generated_image.jpg").exists()
    (tmp_path / "bundles" / "14B-720").symlink_to(nano.folder)
    refused(capsys, "several bundles", *arguments)
    assert run(*arguments, "--model_size", "14b") == 0
    (tmp_path / "bundles" / "2B").symlink_to(nano.folder)
    assert run(*arguments) == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_leaves_nothing(here, nano, sent):
    """A run of its own is stopped while it samples."""
    code = (
        "import sys, functools; from worldrt.engine.backends import null; from worldrt.runtime.cli import main;"
        "null.open_session = functools.partial(null.open_session, latency_s=0.05); sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["text2world", *PROMPT, "--steps", "500", "--backend", "null", "--save_path", "out.mp4"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(name.endswith(".mp4") for name in os.listdir(here)) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert len(os.listdir(here)) == 2  # the staged video and sidecar
    process.send_signal(sent)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130 and told.strip().splitlines()[-1].startswith("interrupted")
    assert os.listdir(here) == []


def test_doctor(capsys):
    assert run("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["packages"]["numpy"]["version"] == np.__version__
    assert report["codecs"]["libx264"]["works"] == "yes" and "CPUExecutionProvider" in report["onnxruntime_providers"]
    assert report["cpu"]["cores"] >= 1 and report["memory_bytes"] > 2**28
    assert run("doctor") == 0
    assert "libx264" in capsys.readouterr().out


def test_help_names_every_task(capsys):
    text = build_parser().format_help()
    assert all(name in text for name in ("text2world", "text2image", "video2world", "inspect", "doctor"))


def test_a_flag_without_effect_says_so(here, capsys):
    assert run("text2world", *SMALL, "--backend", "null", "--save_path", "null:", "--use-cuda-graphs") == 0
    assert "--use_cuda_graphs has no effect" in capsys.readouterr().err
