"""diffusers and the runtime on the same weights: the same x0, and a round that measures all stages."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from worldrt.benchmarks import cpu
from worldrt.benchmarks.cli import main
from worldrt.benchmarks.contenders import worldrt as runtime
from worldrt.benchmarks.contenders.base import STAGES
from worldrt.benchmarks.exactness import inputs, rms_error
from worldrt.benchmarks.results import read
from worldrt.benchmarks.worker import Worker
from worldrt.engine.bundle import Text, Vae, file_sha256, load_bundle, write_manifest
from worldrt.engine.errors import InputError


@pytest.fixture(scope="module")
def hollow(bundle, tmp_path_factory):
    """The bundle with entries for all components; only the video2world denoiser has its graph."""
    folder = tmp_path_factory.mktemp("hollow")
    made = load_bundle(bundle)
    video = made.manifest.denoisers["video2world"]
    (folder / "video2world").mkdir()
    graph = video.graphs["denoise"].file
    (folder / graph).write_bytes((bundle / graph).read_bytes())
    (folder / "tokenizer.json").write_text("{}")
    manifest = replace(
        made.manifest,
        weights=replace(made.manifest.weights, root=str(made.weight_root.absolute())),
        denoisers={"video2world": video, "text2image": replace(video, graphs={})},
        vae=Vae("float32", (), {}, 16, 8, 4, (0.0,) * 16, (1.0,) * 16),
        text=Text("float32", (), {}, "tokenizer.json", 24, video.graphs["denoise"].inputs[2].shape[2]),
        files={"tokenizer.json": file_sha256(folder / "tokenizer.json")},
    )
    write_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="module")
def diffusers(hollow):
    pytest.importorskip("diffusers")
    made = load_bundle(hollow)
    load = cpu.workload(made, steps=1, num_frames=5)
    options = {"workload": asdict(load), "checkpoint": str(made.weight_root), "threads": 1}
    with Worker("diffusers", "diffusers", options, threads=1) as worker:
        yield load, worker


@pytest.mark.parametrize("level", [80.0, 0.5])
def test_one_evaluation_is_the_same(hollow, diffusers, tmp_path, level):
    load, worker = diffusers
    given, there = tmp_path / "given.npz", tmp_path / "there.npz"
    np.savez(given, **inputs(load, "video2world", level))
    worker.ask("denoise", task="video2world", given=str(given), path=str(there))
    ours = runtime.open(asdict(load), str(hollow), "onnxruntime", {"threads": 1})
    ours.denoise("video2world", str(given), str(tmp_path / "ours.npz"))
    x0 = np.load(there)["x0"]
    assert rms_error(np.load(tmp_path / "ours.npz")["x0"], x0) < 5e-6
    assert rms_error(np.load(given)["x"], x0) > 1e-2, "something was evaluated"


def test_a_round_of_diffusers_measures_every_stage(diffusers):
    load, worker = diffusers
    answer = worker.ask("round", index=0)
    assert answer["frames"] == load.num_frames == 5
    assert list(answer["seconds"]) == list(STAGES)
    whole = answer["seconds"].pop("whole")
    assert 0 < sum(answer["seconds"].values()) < whole and min(answer["seconds"].values()) > 0


def test_a_bundle_without_text_cannot_be_measured(bundle):
    with pytest.raises(InputError, match="expected a bundle with text2image, video2world, text and vae"):
        cpu.workload(load_bundle(bundle), steps=1)


@pytest.mark.slow  # exports all of nano
def test_the_whole_comparison(tmp_path):
    arguments = ["cpu", "--rounds", "1", "--steps", "1", "--num_frames", "5", "--threads", "1", "--quiet"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    result = read(next(tmp_path.glob("*-cpu.json")))
    titles = [table.title for table in result.tables]
    assert len(titles) == 5 and titles[0] == "Time by stage"
    timed = {(row[0], row[1]) for row in result.tables[0].rows}
    assert timed == {(stage, name) for stage in STAGES for name in ("worldrt", "int8", "diffusers")}
    errors = {(row[0], row[2]): row[5] for row in result.tables[3].rows if row[1] == 80.0}
    assert errors["text2image", "diffusers"] < 5e-6 < errors["text2image", "int8"] < 0.05
