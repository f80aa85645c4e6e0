"""`--batch_input_json`: what can be made is made, what is there is not made again, and every mistake is told."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from worldrt.engine.backends import null
from worldrt.engine.errors import BlockedError, DeviceMemoryError
from worldrt.runtime import Request, batch_file, generate, task_cli
from worldrt.runtime.cli import build_parser, main
from worldrt.runtime.generate import Generator
from worldrt.runtime.observer import Cancelled
from worldrt.runtime.pipelines import together

SMALL = ("--steps", "1", "--num_frames", "5", "--width", "48", "--height", "32", "--backend", "null", "--quiet")


@pytest.fixture
def here(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.folder.parent))
    return tmp_path


def run(items, *flags, task="text2world"):
    with open("batch", "w") as file:
        file.write(items if isinstance(items, str) else json.dumps(items))
    small = [flag for flag in SMALL if task != "text2image" or flag not in ("--num_frames", "5")]
    return main([task, *small, "--batch_input_json", "batch", *flags])


def outcomes(capsys, items, *flags, code=0, **more):
    capsys.readouterr()
    assert run(items, *flags, "--json", **more) == code
    return json.loads(capsys.readouterr().out)


def two():
    return [{"prompt": "a", "output_video": "a.mp4"}, {"prompt": "b", "output_video": "b.mp4", "seed": 7}]


def test_every_item_is_made_with_what_it_changes_of_the_flags(here, capsys):
    made = outcomes(capsys, two(), "--seed", "3")
    assert [(m["path"], m["status"], m["frames"]) for m in made] == [("a.mp4", "made", 5), ("b.mp4", "made", 5)]
    requests = [json.loads((here / f"{name}.json").read_text())["request"] for name in "ab"]
    assert [(r["prompt"], r["seed"], r["steps"]) for r in requests] == [("a", 3, 1), ("b", 7, 1)]


def test_pictures_and_inputs_have_their_keys(here, capsys):
    pictures = [{"prompt": str(i), "output_image": f"{i}.png", "solver": "euler"} for i in range(2)]
    outcomes(capsys, pictures, task="text2image")
    assert json.loads((here / "0.json").read_text())["request"]["sampler"] == "rectified_flow_euler"
    films = [{"prompt": "x", "input_video": f"{i}.png", "output_video": f"film{i}.mp4"} for i in range(2)]
    outcomes(capsys, films, task="video2world")
    assert json.loads((here / "film1.json").read_text())["input"]["path"] == str(here / "1.png")
    (wrong,) = outcomes(capsys, [{"prompt": "x", "output_video": "c.mp4"}], task="video2world", code=2)
    assert wrong["error"] == "'input_video' is missing"


def test_prompts_of_chunks_say_how_many_there_are_in_items_as_in_flags():
    args = build_parser().parse_args(["text2world", "--prompt_prefix", "Rain. "])
    item = batch_file._Schema(args).item(0, {"chunk_prompts": ["a", "b"], "output_video": "a.mp4"})
    assert item.mistakes == ()
    assert item.job.request == Request("Rain. a", num_chunks=2, chunk_prompts=("Rain. a", "Rain. b"))


def test_the_list_of_the_page_has_no_mistakes():
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    schema = batch_file._Schema(build_parser().parse_args(["text2world"]))
    items = [schema.item(i, data) for i, data in enumerate(json.loads(example))]
    assert [item.mistakes for item in items] == [(), ()]
    assert items[1].job.request == Request("A boat", "blurred", num_frames=61)
    named = re.search(r"what to make, by its name:(.*?)and so on", page, re.DOTALL).group(1)
    assert set(re.findall(r"`(\w+)`", named)) <= {
        *schema.known,
        *batch_file._Schema(build_parser().parse_args(["video2world"])).known,
    }


BAD_ITEMS = [
    (1, "expected an object, got '1'"),
    ({"output_video": "x.mp4"}, "'prompt' is missing"),
    ({"prompt": "x"}, "'output_video' is missing"),
    ({"prompt": 5, "output_video": "x.mp4"}, "prompt: expected a text, got '5'"),
    ({"prompt": "x", "output_video": ["x.mp4"]}, "output_video: expected a text"),
    ({"prompt": "x", "output_video": "x.mp4", "seed": "one"}, "seed: expected an integer, got 'one'"),
    ({"prompt": "x", "output_video": "x.mp4", "promt": "y"}, "'promt': unknown key; did you mean 'prompt'?"),
    ({"prompt": "x", "output_image": "x.png"}, "did you mean 'output_video'?"),
    ({"prompt": "x", "output_video": "x.mp4", "num_frames": 8}, "multiple of 4, got 8"),
    ({"prompt": "", "output_video": "x.mp4"}, "prompt: it is empty"),
    ({"prompt": "x", "output_video": "x.mp4", "distill_steps": 7}, "expected 1 to 4 steps, got 7"),
    ({"prompt": "x", "output_video": "x.mp4", "num_chunks": 0}, "num_chunks: expected 1 to 10000, got 0"),
    ({"prompt": "x", "output_video": "x.mp4", "guidance_interval": [1]}, "guidance_interval: "),
    ({"prompt": "x", "output_video": "x.mp4", "step_cache": -1}, "step_cache: "),
    ({"prompt": "x", "output_video": "x.mp4", "edit_strength": 0.5}, "edit_strength: what is to be edited is missing"),
    ({"prompt": "x", "output_video": "x.mp4", "quality": 0}, "--quality: expected 1 to 100, got 0"),
    ({"prompt": "x", "output_video": "x.gif"}, "'x.gif': expected a name that ends in"),
    ({"prompt": "x", "output_video": "/proc/none/x.mp4"}, "cannot be written"),
    ({"prompt": "x", "output_video": "good.mp4"}, "good.json: item 0 has this place already"),
    ({"prompt": "x", "output_video": "./good.png"}, "good.json: item 0 has this place already"),
    ({"prompt": "x", "output_video": "new/../good.png"}, "good.json: item 0 has this place already"),
    ({"prompt": "x", "output_video": "there.mp4"}, "there.json exists"),
    ({"prompt": "x" * 9000, "output_video": "x.mp4"}, "tokens"),
]


@pytest.mark.parametrize(("item", "why"), BAD_ITEMS, ids=lambda value: str(value)[:40])
def test_a_bad_item_is_told_and_the_others_are_made(here, capsys, item, why):
    (here / "there.json").write_text("{}")
    items = [{"prompt": "a", "output_video": "good.mp4"}, item]
    good, bad = outcomes(capsys, items, code=2)
    assert good["status"] == "made" and (here / "good.mp4").is_file()
    assert bad["status"] == "failed" and why in bad["error"]
    assert set(os.listdir()) == {"batch", "there.json", "good.mp4", "good.json"}


def test_inputs_that_cannot_be_read_are_found_before_anything_is_made(here, capsys, monkeypatch):
    assert run([{"prompt": "s", "output_image": "s.png"}], task="text2image") == 0
    (here / "torn.png").write_bytes((here / "s.png").read_bytes()[:50])
    item = {"prompt": "x", "input_video": "s.png", "output_video": "good.mp4"}
    bad = {
        "torn.png": "cannot be read",
        "batch": "it holds no picture",
        "none.png": "no such file",
        ".": "it is a folder",
    }
    items = [item, *({"prompt": "x", "input_video": name, "output_video": f"{i}.mp4"} for i, name in enumerate(bad))]
    items.append(item | {"num_conditional_frames": 5, "num_frames": 9, "output_video": "five.mp4"})
    assert run(items, "--strict", task="video2world") == 2
    told = capsys.readouterr().err.splitlines()
    for line, why in zip(told, [*bad.values(), "expected 5 frame(s) or more, got 1"], strict=False):
        assert why in line, line
    assert "5 of 6 items" in told[-1] and not (here / "good.mp4").exists()
    done = outcomes(capsys, items, code=2, task="video2world")
    assert [o["status"] for o in done] == ["made", *["failed"] * 5]


def test_all_mistakes_of_an_item_are_told_at_once(here, capsys):
    item = {"prompt": 5, "output_video": 6, "sead": 1, "seed": "x"}
    (bad,) = outcomes(capsys, [item], code=2)
    assert all(part in bad["error"] for part in ("prompt: exp", "output_video: exp", "'sead'", "seed: exp"))
    (bad,) = outcomes(capsys, [{"prompt": " ", "output_video": "/proc/none/x.mp4"}], code=2)
    assert "it is empty" in bad["error"] and "cannot be written" in bad["error"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "got an empty one"),
        ("{}", "expected a list"),
        ("5", "expected a list"),
        ("[", "not JSON"),
        ('[{"prompt": "a", "prompt": "b", "output_video": "a.mp4"}]', "stands there twice"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"prompt": "a", "output_video": "a.mp4", "guidance": NaN}]', "no"),
    ],
)
def test_a_file_that_is_no_list_is_refused(here, capsys, content, why):
    assert run(content) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("error: batch: ") and why in told[0]
    assert os.listdir() == ["batch"]


def test_strict_makes_nothing_where_an_item_is_wrong(here, capsys):
    items = [*two(), {"prompt": 1, "output_video": "c.mp4"}, 5]
    assert run(items, "--strict") == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("error: batch[2]: prompt: ") and told[1].startswith("error: batch[3]: ")
    assert "2 of 4 items cannot be made; none was begun" in told[2] and os.listdir() == ["batch"]


def test_a_sidecar_replaces_nothing_but_sidecars(here, capsys):
    """The list itself, with a result of its name, or whatever else a user keeps in JSON beside a clip."""
    (here / "a.json").write_text(json.dumps(two()))
    assert main(["text2world", *SMALL, "--batch_input_json", "a.json", "--overwrite"]) == 2
    assert "a.json: it is no sidecar and is not replaced" in capsys.readouterr().err
    assert json.loads((here / "a.json").read_text()) == two() and not (here / "a.mp4").exists()
    for _ in range(2):
        assert main(["text2world", *SMALL, "--prompt", "x", "--save_path", "b.mp4", "--overwrite"]) == 0


def test_a_result_does_not_replace_what_it_is_made_from(here, nano, capsys):
    made = {"prompt": "x", "output_image": "in.png"}
    outcomes(capsys, [made], task="text2image")
    before = (here / "in.png").read_bytes()
    item = {"prompt": "x", "input_video": "in.png", "output_video": "png:./in.png"}
    (wrong,) = outcomes(capsys, [item], "--overwrite", task="video2world", code=2)
    assert "would replace what it is made from" in wrong["error"] and (here / "in.png").read_bytes() == before


def test_a_list_may_begin_with_a_byte_order_mark(here):
    assert run("\ufeff" + json.dumps(two())) == 0


def test_ten_bad_items_of_a_hundred_leave_ninety_results(here, capsys):
    items = [{"prompt": f"p{i % 7}", "output_video": f"out/{i:03}.mp4"} for i in range(100)]
    for i, (item, _) in enumerate(BAD_ITEMS[:10]):
        items[i * 10 + 3] = item
    done = outcomes(capsys, items, code=2)
    assert [o["status"] for o in done].count("made") == 90
    assert [i for i, o in enumerate(done) if o["status"] == "failed"] == list(range(3, 100, 10))
    assert len(os.listdir("out")) == 180
    again = outcomes(capsys, items, code=2)
    assert [o["status"] for o in again].count("skipped") == 90


def test_a_text_is_encoded_once_however_many_items_have_it(here, capsys, monkeypatch):
    encoded = []
    ran = generate.Models.text
    monkeypatch.setattr(generate.Models, "text", lambda self, task: _spied(ran(self, task), encoded))
    prompts = [str(i) for i in range(18)] * 2
    items = [{"prompt": p, "negative_prompt": "n", "output_image": f"{i}.png"} for i, p in enumerate(prompts)]
    outcomes(capsys, items, task="text2image")
    assert len(encoded) == 19  # and the negative one
    outcomes(capsys, items, "--overwrite", "--offload_text_encoder", task="text2image")
    assert len(encoded) == 38


def _spied(encoder, encoded):
    if not hasattr(encoder, "spied"):
        run_ids, encoder.spied = encoder._run, True
        encoder._run = lambda ids: encoded.append(ids) or run_ids(ids)
    return encoder


def test_what_is_finished_is_skipped(here, capsys):
    outcomes(capsys, two())
    before = os.stat("a.mp4").st_mtime_ns
    assert [o["status"] for o in outcomes(capsys, two())] == ["skipped", "skipped"]
    os.unlink("b.mp4")  # its sidecar alone is no result
    done = outcomes(capsys, two(), code=2)
    assert [o["status"] for o in done] == ["skipped", "failed"] and "b.json exists" in done[1]["error"]
    os.unlink("b.json")
    assert [o["status"] for o in outcomes(capsys, two())] == ["skipped", "made"]
    assert os.stat("a.mp4").st_mtime_ns == before
    assert [o["status"] for o in outcomes(capsys, two(), "--overwrite")] == ["made", "made"]


def test_what_was_made_otherwise_is_not_taken_for_finished(here, capsys):
    outcomes(capsys, two())
    changed = [o["status"] for o in outcomes(capsys, two(), "--guidance", "3", code=2)]
    assert changed == ["failed", "failed"]
    changed = [o["status"] for o in outcomes(capsys, two(), "--quality", "50", code=2)]
    assert changed == ["failed", "failed"]
    facts = json.loads((here / "a.json").read_text())
    facts["bundles"][0]["weights"]["vae/diffusion_pytorch_model.safetensors"]["header_sha256"] = "0" * 64
    (here / "a.json").write_text(json.dumps(facts))
    assert [o["status"] for o in outcomes(capsys, two(), code=2)] == ["failed", "skipped"]


def test_another_input_of_the_same_name_is_no_reason_to_skip(here, capsys):
    for name in ("one", "two"):
        assert run([{"prompt": name, "output_image": f"{name}.png", "seed": len(name)}], task="text2image") == 0
    film = [{"prompt": "x", "input_video": "one.png", "output_video": "film.mp4"}]
    assert [o["status"] for o in outcomes(capsys, film, task="video2world")] == ["made"]
    assert [o["status"] for o in outcomes(capsys, film, task="video2world")] == ["skipped"]
    with open("one.png", "ab") as file:
        file.write(b"\0")
    assert [o["status"] for o in outcomes(capsys, film, task="video2world", code=2)] == ["failed"]


class _Guard:
    """Refuses prompts with the word `bad`, and frames of runs with the word `ugly`."""

    def __init__(self):
        self.seen, self.films = [], 0

    def check_text(self, text, what="prompt"):
        if "bad" in text:
            raise BlockedError("prompt: refused")
        self.seen.append(text)

    def frames(self, frames, *_):
        text, self.films = self.seen[self.films], self.films + 1
        for i, frame in enumerate(frames):
            if "ugly" in text and i == 3:
                raise BlockedError("frame 3: refused")
            yield frame


@pytest.fixture
def guarded(here, monkeypatch):
    """Have runs from now on looked at by a guard."""
    made = task_cli.make_generator

    def guarded_generator(args):
        generator = made(args)
        generator.guard = _Guard()
        return generator

    return lambda: monkeypatch.setattr(task_cli, "make_generator", guarded_generator)


def test_blocked_items_leave_nothing_and_are_told_apart(here, guarded, capsys):
    guarded()
    items = [{"prompt": p, "output_video": f"{p}.mp4"} for p in ("good", "bad", "ugly")]
    done = outcomes(capsys, items, code=3)
    assert [o["status"] for o in done] == ["made", "blocked", "blocked"]
    assert [o["error"] for o in done] == [None, "prompt: refused", "frame 3: refused"]
    assert set(os.listdir()) == {"batch", "good.mp4", "good.json"}
    assert json.loads((here / "good.json").read_text())["guardrail"] is True
    done = outcomes(capsys, [*items, {"prompt": "", "output_video": "c.mp4"}], code=2)
    assert [o["status"] for o in done] == ["skipped", "blocked", "blocked", "failed"]


def test_a_result_that_no_guard_has_seen_is_not_finished_for_one(here, guarded, capsys):
    outcomes(capsys, two(), "--disable_guardrail")
    guarded()
    assert [o["status"] for o in outcomes(capsys, two(), code=2)] == ["failed", "failed"]


@pytest.mark.parametrize("error", [ValueError("a defect"), MemoryError(), OSError(5, "the disk is gone")])
def test_any_failure_of_an_item_leaves_the_others(here, capsys, monkeypatch, error):
    frames = Generator._frames

    def fails(self, run):
        if run.job.request.prompt == "a":
            raise error
        return frames(self, run)

    monkeypatch.setattr(Generator, "_frames", fails)
    done = outcomes(capsys, two(), code=2)
    assert [o["status"] for o in done] == ["failed", "made"] and done[0]["error"]
    assert set(os.listdir()) == {"batch", "b.mp4", "b.json"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled])
def test_an_interruption_ends_the_batch_and_it_can_be_resumed(here, capsys, monkeypatch, error):
    frames = Generator._frames

    def fails(self, run):
        if run.job.request.prompt == "b":
            raise error
        return frames(self, run)

    with monkeypatch.context() as patched:
        patched.setattr(Generator, "_frames", fails)
        if error is Cancelled:
            with pytest.raises(Cancelled):
                run(two(), "--json")
        else:
            assert run(two(), "--json") == 130
    assert [o["status"] for o in json.loads(capsys.readouterr().out)] == ["made"]
    assert set(os.listdir()) == {"batch", "a.mp4", "a.json"}
    assert [o["status"] for o in outcomes(capsys, two())] == ["skipped", "made"]


@pytest.mark.parametrize("size", ["1", "2"])
def test_an_interruption_while_the_sidecar_is_made_leaves_no_result_without_one(here, capsys, monkeypatch, size):
    """Else the item would be in its own way when the batch is resumed."""

    def interrupted(self, run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Generator, "_facts", interrupted)
        assert run(two(), "--batch_size", size) == 130
    assert os.listdir() == ["batch"]
    assert [o["status"] for o in outcomes(capsys, two())] == ["made", "made"]


def test_the_table_says_what_became_of_each_item(here, capsys):
    hostile = "x\x1b[31m[bold]\n.mp4"
    assert run([*two(), {"prompt": 5, "output_video": hostile}]) == 2
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].startswith("2/3 [0] a.mp4: 5 frame(s), 48x32, ") and lines[1].startswith("3/3 [1] b.mp4: ")
    assert lines[-1] == "2 made, 1 failed" and any("item" in line and "why" in line for line in lines)
    assert "\x1b" not in told.out + told.err and r"x\x1b[31m[bold]\n.mp4" in told.out
    assert told.err.startswith("error: batch[2]: prompt: expected a text")


def test_models_stay_loaded_over_a_batch(here, capsys, monkeypatch):
    opened, open_session = [], null.open_session

    def spied(path, *arguments, **more):
        opened.append(path)
        return open_session(path, *arguments, **more)

    monkeypatch.setattr(null, "open_session", spied)
    outcomes(capsys, [{"prompt": str(i), "output_video": f"{i}.mp4"} for i in range(3)])
    assert len(opened) == len(set(opened)) > 4


def test_a_batch_of_a_model_that_is_not_there_is_refused_at_once(here, nano, capsys):
    manifest = json.loads((nano.folder / "bundle.json").read_text())
    del manifest["denoisers"]["text2image"]
    shutil.copytree(nano.folder, "half")
    with open("half/bundle.json", "w") as file:
        json.dump(manifest, file)
    assert run(two(), "--bundle", "half") == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "no model for text2image" in told[0]


def frames_of(place):
    kept = []
    for name in sorted(Path(place.removeprefix("png:")).iterdir()) if place.startswith("png:") else [place]:
        with av.open(str(name)) as container:
            kept += [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    return np.stack(kept)


def calls(monkeypatch):
    """How many clips each sampling made, from now on."""
    counted, sample = [], together.sample_clips

    def spied(models, task, settings, clips, observer):
        counted.append((task, len(clips)))
        return sample(models, task, settings, clips, observer)

    monkeypatch.setattr(together, "sample_clips", spied)
    return counted


@pytest.mark.parametrize("task", ["text2image", "text2world", "video2world"])
def test_items_with_equal_settings_are_made_together_and_as_by_themselves(
    here, nano_by_torch, capsys, monkeypatch, task
):
    key, place = ("output_image", "{}.png") if task == "text2image" else ("output_video", "png:{}")
    items = [{"prompt": f"p{i}", key: place.format(i), "seed": i} for i in range(5)]
    items[2]["guidance"] = 2.0
    if task == "video2world":
        assert run([{"prompt": "s", "output_image": f"s{i}.png", "seed": i} for i in range(2)], task="text2image") == 0
        for i, item in enumerate(items):
            item["input_video"] = f"s{i % 2}.png"
    computing = ("--backend", "onnxruntime")
    counted = calls(monkeypatch)
    made = outcomes(capsys, items, *computing, "--batch_size", "3", task=task)
    assert [(o["path"], o["status"]) for o in made] == [(item[key], "made") for item in items]
    tasks = ("text2image", "video2world") if task == "text2world" else (task,)
    assert counted == [(task, 3) for task in tasks]  # the fourth of its kind and the other kind by themselves
    notes = [json.loads((here / f"{i}.json").read_text()) for i in range(5)]
    assert [note.get("made_together") for note in notes] == [3, 3, None, 3, None]
    together_frames = [frames_of(item[key]) for item in items]
    outcomes(capsys, items, *computing, "--overwrite", task=task)
    for item, expected in zip(items, together_frames, strict=True):
        # a picture that is rounded otherwise is one step off, and the video that goes on from it a little more
        assert np.abs(frames_of(item[key]) - expected).max() <= (4 if task == "text2world" else 1)


def test_a_refused_item_leaves_its_group(here, guarded, capsys, monkeypatch):
    guarded()
    counted = calls(monkeypatch)
    items = [{"prompt": p, "output_video": f"{p}.mp4"} for p in ("good", "bad", "fine", "ugly")]
    done = outcomes(capsys, items, "--batch_size", "4", code=3)
    assert [o["status"] for o in done] == ["made", "blocked", "made", "blocked"]
    assert counted == [("text2image", 3), ("video2world", 3)]
    assert set(os.listdir()) == {"batch", "good.mp4", "good.json", "fine.mp4", "fine.json"}


@pytest.mark.parametrize("error", [DeviceMemoryError("too little memory for two"), RuntimeError("a defect")])
def test_what_cannot_be_made_together_is_made_alone(here, capsys, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(together, "sample_clips", full)
    assert [o["status"] for o in outcomes(capsys, two(), "--batch_size", "2")] == ["made", "made"]
    assert "made_together" not in json.loads((here / "a.json").read_text())


def test_films_in_chunks_are_made_one_at_a_time(here, capsys, monkeypatch):
    counted = calls(monkeypatch)
    items = [item | {"num_chunks": 2} for item in two()]
    assert [o["frames"] for o in outcomes(capsys, items, "--batch_size", "2")] == [9, 9]
    assert counted == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled])
def test_an_interruption_ends_a_group(here, capsys, monkeypatch, error):
    def stops(*_):
        raise error

    monkeypatch.setattr(together, "sample_clips", stops)
    if error is Cancelled:
        with pytest.raises(Cancelled):
            run(two(), "--json", "--batch_size", "2")
    else:
        assert run(two(), "--json", "--batch_size", "2") == 130
    assert os.listdir() == ["batch"] and json.loads(capsys.readouterr().out) == []
