"""`trt-export` for people: quick help, one line for a mistake, nothing lost and nothing left over."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from worldrt.engine import plugin
from worldrt.export import cli, job
from worldrt.export.fabricate import write_sparse
from worldrt.export.flags import FAMILIES, family_of, models


@pytest.fixture
def checkpoint(nano_bundle, tmp_path):
    """A nano checkpoint that may be spoilt."""
    shutil.copytree(nano_bundle / "checkpoint", tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def fails(capsys, *args, code=2):
    """The one line that a mistake ends in."""
    try:
        result = cli.main([str(arg) for arg in args])
    except SystemExit as end:
        result = end.code
    out, err = capsys.readouterr()
    assert result == code
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    assert not out.strip()
    return lines[0]


NANO_TEXT = ("--model", "nano", "--components", "text", "--no-verify", "--no_torch_program")
NANO_DIT = (
    "--model",
    "nano",
    "--task",
    "text2image",
    "--components",
    "text2image",
    "--no-verify",
    "--no_torch_program",
)


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from worldrt.export import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--checkpoint" in run.stdout and "trt-export --model nano" in run.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "--model"),
        (("--model", "3B"), "3B"),
        (("--model", "2B", "--sped", "1"), "--sped"),
        (("--model", "2B", "--dit_path", "x.pt"), "--task text2image or --task video2world"),
        (("--model", "0.6B", "--task", "video2world"), "no Cosmos-Predict2 model '0.6B video2world'"),
        (("--model", "0.6B", "--components", "video2world"), "this model has text2image, vae, text"),
    ],
)
def test_wrong_flags(capsys, args, says):
    assert says in fails(capsys, *args)


def test_missing_checkpoint_names_places_and_repository(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = fails(capsys, "--model", "2B", "--task", "video2world")
    assert f"{tmp_path}/checkpoints/transformer" in line and "model-720p-16fps.pt" in line
    assert "https://huggingface.co/nvidia/Cosmos-Predict2-2B-Video2World" in line
    assert "is no folder" in fails(capsys, "--model", "2B", "--checkpoint", tmp_path / "nowhere")
    assert not (tmp_path / "bundles" / "2B-video2world").exists()


def test_spoilt_checkpoints(capsys, checkpoint, tmp_path):
    out = tmp_path / "out" / "b"
    file = checkpoint / "text2image" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    args = (*NANO_DIT, "--checkpoint", checkpoint, "-o", out)

    file.write_bytes(whole[:-100])
    assert "cut short" in fails(capsys, *args)
    file.write_bytes(whole[:20])
    assert "not a safetensors file, or cut short" in fails(capsys, *args)

    shutil.copy(checkpoint / "video2world" / file.name, file)
    assert "no weights of this model here" in fails(capsys, *args)

    file.write_bytes(whole)
    tensors = load_file(file)
    save_file({k: v for k, v in tensors.items() if k != "transformer_blocks.2.ff.net.2.weight"}, file)
    assert "no tensor 'transformer_blocks.2.ff.net.2.weight'" in fails(capsys, *args)
    save_file(tensors | {"proj_out.weight": tensors["proj_out.weight"].to(torch.complex64)}, file)
    assert "dtype C64" in fails(capsys, *args)
    save_file(tensors | {"proj_out.weight": tensors["proj_out.weight"].half()}, file)  # an odd one out is fine here
    assert not list(out.parent.glob("*")), "something was left behind"


def test_places_that_cannot_be_written(capsys, checkpoint, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    args = (*NANO_TEXT, "--checkpoint", checkpoint)
    assert "exists" in fails(capsys, *args, "-o", tmp_path / "b")
    assert "not replaced" in fails(capsys, *args, "-o", tmp_path / "b", "--overwrite")
    assert (tmp_path / "b" / "mine.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails(capsys, *args, "-o", tmp_path / "file" / "b")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(capsys, checkpoint, tmp_path, monkeypatch, interruption):
    def stop(*_):
        raise interruption

    monkeypatch.setattr(job, "check_graph", stop)
    out = tmp_path / "out" / "b"
    code = cli.main([*NANO_TEXT, "--checkpoint", str(checkpoint), "-o", str(out)])
    err = capsys.readouterr().err
    assert code == (130 if interruption is KeyboardInterrupt else 2)
    assert "nothing" in err and "Traceback" not in err
    assert not list(out.parent.glob("*"))


def test_overwrite_json_and_workers(checkpoint, tmp_path):
    """By its real entry point, in two processes, over an old bundle."""
    out = tmp_path / "b"
    out.mkdir()
    (out / "old.txt").write_text("old")
    (out / "bundle.json").write_text("{}")
    command = [sys.executable, "-c", "import sys; from worldrt.export.cli import main; sys.exit(main())"]
    args = [
        "--model",
        "nano",
        "--components",
        "text",
        "text2image",
        "--form=whole",
        "--no-verify",
        "--no-torch-program",
    ]
    run = subprocess.run(
        [*command, *args, "--checkpoint", checkpoint, "-o", out, "--overwrite", "--json", "--jobs", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert set(report["bytes_written"]) == {
        *("bundle.json", "text/encode.onnx", "text/tokenizer.json", "text2image/denoise.onnx")
    }
    assert report["peak_rss_bytes"] > 1e8 and report["seconds"] > 0 and not (out / "old.txt").exists()


def test_large_files_that_are_no_model(capsys, tmp_path):
    """A header of the right key but another width is refused before anything is traced."""
    (tmp_path / "transformer").mkdir()
    write_sparse(tmp_path / "transformer" / "m.safetensors", {"patch_embed.proj.weight": (5120, 72)}, "bfloat16")
    line = fails(capsys, "--model", "2B", "--task", "video2world", "--checkpoint", tmp_path)
    assert "expected [2048, 72], got [5120, 72]" in line


def test_a_missing_tokenizer_is_found_before_anything_is_traced(checkpoint, tmp_path, monkeypatch, capsys):
    shutil.rmtree(checkpoint / "tokenizer")
    monkeypatch.setattr(job, "run_job", lambda *_: pytest.fail("traced"))
    line = fails(capsys, *NANO_TEXT, "--checkpoint", checkpoint, "-o", tmp_path / "out")
    assert "tokenizer.json: not found; looked for" in line
    assert not (tmp_path / "out").exists()


def test_families_say_which_models_they_have():
    """In their packages, where a parser of flags can read it without loading torch."""
    for family in plugin.names(FAMILIES):
        variants = importlib.import_module(f"{FAMILIES}.{family}.variants").variants()
        own = {getattr(v, "name", None) or v.size for v in variants}
        assert own == set(plugin.load(FAMILIES, family).MODELS)
        assert own <= set(models()) and {family_of(name) for name in own} == {family}
