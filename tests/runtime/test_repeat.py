"""`--from_sidecar`: everything that a run was told is told again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from worldrt.engine.schema import decode, encode
from worldrt.runtime import engine_flags, sidecar
from worldrt.runtime.cli import build_parser, main
from worldrt.runtime.components import Execution
from worldrt.runtime.execution_note import ExecutionNote, flags_of, note_of
from worldrt.runtime.repeat import repeated

RUN = ("--prompt", "a", "--steps", "1", "--num_frames", "5", "--width", "48", "--height", "32", "--backend", "null")


@pytest.fixture
def here(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.folder.parent))
    monkeypatch.setenv("WORLDRT_PLAN_CACHE", str(tmp_path / "no plans"))
    return tmp_path


def run(*arguments):
    return main([str(argument) for argument in (*arguments, "--quiet")])


def facts(name):
    with open(name) as file:
        return json.load(file)


GPU = (
    *("--backend", "tensorrt", "--gpu_memory", "12.5", "--offload", "--offload_text_encoder", "--use_cuda_graphs"),
    *("--profile", "rows=1:2:3", "frames=4", "--optimization_level", "5", "--workspace_gb", "1.5"),
    *("--block_weights", "constants", "--strip_plan", "--cfg", "sequential", "--device", "cuda:1"),
)


def note_of_flags(args):
    more = {"guidance": args.cfg, "offload_text": args.offload_text_encoder, "backend": args.backend}
    return note_of(Execution(**engine_flags.execution(args), **more))


def test_every_flag_about_engines_comes_back_from_a_sidecar():
    """Without a GPU: what the flags say, as the sidecar says it, as flags again."""
    args = build_parser().parse_args(["text2world", *GPU])
    note = note_of_flags(args)
    stored = decode(ExecutionNote, json.loads(json.dumps(encode(note))))
    assert stored == note and note.engines is not None and note.engines.profile["frames"] == (4, 4, 4)
    again = build_parser(flags_of(stored)).parse_args(["text2world"])
    assert note_of_flags(again) == note


def test_flags_that_only_the_sidecars_backend_takes_are_left_out_for_another(here):
    assert run("text2world", *RUN, "--save_path", "a.mp4") == 0
    data = facts("a.json")
    args = build_parser().parse_args(["text2world", *GPU])
    data["execution"] = encode(note_of_flags(args))
    (here / "gpu.json").write_text(json.dumps(data))
    argv = ["text2world", "--from_sidecar", "gpu.json"]

    def again(*more):
        return repeated(
            build_parser().parse_args([*argv, *more]), lambda values: build_parser(values).parse_args([*argv, *more])
        )

    assert again().gpu_memory == 12.5 and again().optimization_level == 5 and again().profile
    other = again("--backend", "null", "--device", "cpu")
    engine_flags.check(other)
    assert other.gpu_memory is None and other.optimization_level == 3 and not other.profile and other.offload
    assert run(*argv, "--backend", "null", "--device", "cpu", "--save_path", "b.mp4") == 0


def test_a_sidecar_of_an_older_version_can_be_repeated(here):
    assert run("text2world", *RUN, "--save_path", "a.mp4") == 0
    data = facts("a.json")
    for key in ("edit", "input", "guardrail", "refined_prompt"):
        data.pop(key, None)
    data["execution"] = {k: data["execution"][k] for k in ("backend", "device", "guidance", "options", "kernels")}
    data["request"] = {k: data["request"][k] for k in ("prompt", "seed", "steps", "num_frames", "width", "height")}
    (here / "old.json").write_text(json.dumps(data))
    assert run("text2world", "--from_sidecar", "old.json", "--save_path", "b.mp4") == 0
    assert facts("b.json")["request"] == facts("a.json")["request"]


def test_the_quality_of_a_file_is_repeated(here):
    assert run("text2world", *RUN, "--quality", "20", "--save_path", "a.mp4") == 0
    assert run("text2world", "--from_sidecar", "a.json", "--save_path", "b.mp4") == 0
    assert facts("b.json")["quality"] == 20 and (here / "a.mp4").read_bytes() == (here / "b.mp4").read_bytes()


class _Refiner:
    def __init__(self):
        self.asked = []

    def refine(self, prompt, frames):
        self.asked.append((prompt, frames.shape))
        return f"{prompt}, refined {len(self.asked)}"


def test_a_refined_prompt_is_kept_and_not_refined_again(here, monkeypatch):
    from worldrt.runtime import task_cli

    refiner, made, texts = _Refiner(), task_cli.make_generator, []

    def refining(args):
        generator = made(args)
        generator.refiner = refiner
        encode_text = generator.models.text("video2world").encode
        monkeypatch.setattr(
            generator.models.text("video2world"), "encode", lambda text: texts.append(text) or encode_text(text)
        )
        return generator

    monkeypatch.setattr(task_cli, "make_generator", refining)
    assert run("text2world", *RUN, "--save_path", "a.mp4") == 0
    assert refiner.asked == [("a", (1, 80, 128, 3))] and facts("a.json")["refined_prompt"] == "a, refined 1"
    assert facts("a.json")["request"]["prompt"] == "a" and {"a", "a, refined 1"} <= set(texts)
    assert run("text2world", "--from_sidecar", "a.json", "--save_path", "b.mp4") == 0
    assert len(refiner.asked) == 1 and facts("b.json")["refined_prompt"] == "a, refined 1"
    assert run("text2world", "--from_sidecar", "a.json", "--prompt", "b", "--save_path", "c.mp4") == 0
    assert facts("c.json")["refined_prompt"] == "b, refined 2"


def test_post_trained_weights_are_known_by_what_they_hold(here, nano, capsys):
    """Their headers are equal; one number differs."""
    source = nano.root / "video2world" / "diffusion_pytorch_model.safetensors"
    weights = load_file(source)
    save_file(weights, "tuned.safetensors")
    assert (
        run("video2world", *RUN, "--dit_path", "tuned.safetensors", "--save_path", "a.mp4", "--input_path", _picture())
        == 0
    )
    note = facts("a.json")["changes"]["video2world"]
    assert (
        list(note["weights_sha256"]) == ["tuned.safetensors"] and len(note["weights_sha256"]["tuned.safetensors"]) == 64
    )
    again = ("video2world", "--from_sidecar", "a.json", "--overwrite", "--save_path", "b.mp4")
    assert run(*again) == 0 and "not the one of the sidecar" not in capsys.readouterr().err
    name = sorted(weights)[0]
    weights[name] = weights[name] + np.float32(1)
    save_file(weights, "tuned.safetensors")
    assert run(*again) == 0 and "not the one of the sidecar" in capsys.readouterr().err
    old = facts("a.json")
    del old["changes"]["video2world"]["weights_sha256"]
    (here / "old.json").write_text(json.dumps(old))
    models = type("Models", (), {"bundles": (), "changes": {}})()
    assert sidecar.differs(sidecar.read(here / "a.json"), models)
    assert run("video2world", "--from_sidecar", "old.json", "--save_path", "c.mp4") == 0
    assert "not the one of the sidecar" not in capsys.readouterr().err


def _picture():
    assert run("text2image", *RUN[:4], "--backend", "null", "--save_path", "start.png") == 0
    return "start.png"
