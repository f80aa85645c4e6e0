"""`trt-run bestofn`: videos, reviews, names, ranking, and going on after an interruption."""

import json
from pathlib import Path

import pytest

from worldrt.engine.errors import BlockedError
from worldrt.runtime import BestOfN, BestOfNRequest, Request
from worldrt.runtime.cli import main
from worldrt.runtime.jobs import Job
from worldrt.runtime.observer import Cancelled
from worldrt.runtime.progress import Plain
from worldrt.runtime.reason.critic import Critic

from ..fakes import qwen
from ..fakes.endpoint import Reply, completion, serve

NO, YES, NONSENSE = "<answer>No</answer>", "<answer>Yes</answer>", "I like it."
SMALL = ("--steps", "1", "--num_frames", "5", "--width", "48", "--height", "32", "--quiet")


@pytest.fixture
def work(nano, nano_by_torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLDRT_BUNDLES", str(nano.folder.parent))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert run("text2image", "--prompt", "x", "--steps", "1", "--save_path", "photo.png", "--quiet") == 0
    return tmp_path


@pytest.fixture
def fake(work):
    with serve() as server:
        yield server


def run(*arguments):
    return main([str(argument) for argument in arguments])


def bestofn(fake, *arguments):
    named = ("--critic_url", fake.url, "--critic_model", "m", "--input_path", "photo.png", "--save_path", "out")
    return run("bestofn", "--prompt", "a <b>red</b> car", *SMALL, *named, *arguments)


def replies(*trials):
    return [Reply(completion(*texts)) for texts in trials]


def test_videos_are_made_with_the_seeds_after_the_first_judged_and_ranked(fake, capsys):
    fake.replies = replies([NO, YES, NONSENSE], [NO, NO, YES], [YES] * 3)
    assert bestofn(fake, "--seed", "7", "--num_generations", "3", "--num_critic_trials", "3") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == sorted([
        "best-of-n.json",
        *(f"photo_seed{seed}.{suffix}" for seed in (7, 8, 9) for suffix in ("mp4", "json")),
        *(f"photo_seed{seed}_score{score}.{suffix}"
          for seed, score in ((7, "050"), (8, "066"), (9, "000")) for suffix in ("html", "json")),
    ])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].split()[-1] for line in lines[-4:-1]][1:] == ["photo_seed7.mp4", "photo_seed9.mp4"]
    assert "photo_seed8.mp4  <- best" in lines[-4] and lines[-1] == "best: out/photo_seed8.mp4"
    ranking = json.loads(Path("out/best-of-n.json").read_text())
    assert ranking["best"] == "out/photo_seed8.mp4"
    assert [candidate["score"] for candidate in ranking["candidates"]] == [2 / 3, 0.5, 0.0]
    answers = json.loads(Path("out/photo_seed7_score050.json").read_text())
    assert answers["responses"] == [NO, YES, NONSENSE] and (answers["no"], answers["understood"]) == (1, 2)
    html = Path("out/photo_seed7_score050.html").read_text()
    assert "a &lt;b&gt;red&lt;/b&gt; car" in html and "<b>" not in html
    assert len({Path(f"out/photo_seed{seed}.mp4").read_bytes() for seed in (7, 8, 9)}) == 3
    assert [asked["seed"] for asked in fake.asked] == [7, 7, 7] and fake.asked[0]["n"] == 3
    numbers = {"temperature": 0.6, "top_p": 0.95, "top_k": 50, "repetition_penalty": 1.05, "max_tokens": 4096}
    assert numbers.items() <= fake.asked[0].items()


def test_candidates_are_made_together_where_that_is_asked_for(fake):
    fake.replies = replies([NO])
    arguments = ("--num_generations", "3", "--num_critic_trials", "1", "--batch_size", "2")
    assert bestofn(fake, *arguments) == 0
    facts = [json.loads(Path(f"out/photo_seed{seed}.json").read_text()) for seed in range(3)]
    assert [data.get("made_together") for data in facts] == [2, 2, None]
    assert [data["request"]["seed"] for data in facts] == [0, 1, 2]


def test_what_is_finished_is_not_made_again(fake):
    fake.replies = replies([NO] * 2, [YES] * 2)
    arguments = ("--num_critic_trials", "2")
    assert bestofn(fake, *arguments) == 0
    made = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path("out").glob("photo*")}
    Path("out/photo_seed1_score000.html").unlink()
    assert bestofn(fake, *arguments) == 0 and len(fake.asked) == 2
    again = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path("out").glob("photo*")}
    assert again.keys() == made.keys() and all(again[name][1] == made[name][1] for name in made)
    assert {name for name in made if again[name] != made[name]} == {"photo_seed1_score000.html"}
    Path("out/photo_seed1_score000.json").unlink()
    Path("out/photo_seed1_score000.html").unlink()
    fake.replies = replies([NO, YES])
    assert bestofn(fake, *arguments, "--num_generations", "2") == 0 and len(fake.asked) == 3
    assert Path("out/photo_seed1_score050.html").is_file()


def test_other_work_in_the_folder_is_not_replaced_unless_asked_for(fake, capsys):
    fake.replies = replies([NO])
    assert bestofn(fake, "--num_generations", "1", "--num_critic_trials", "1") == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    for other in (("--num_critic_trials", "2"), ("--steps", "2")):
        assert bestofn(fake, "--num_generations", "1", "--num_critic_trials", "1", *other) == 2
        assert "--overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before and len(fake.asked) == 1
    fake.replies = replies([YES, NO])
    assert bestofn(fake, "--num_generations", "1", "--num_critic_trials", "2", "--overwrite") == 0
    assert not Path("out/photo_seed0_score100.json").exists() and not Path("out/photo_seed0_score100.html").exists()
    assert Path("out/photo_seed0_score050.html").is_file()


def test_an_interrupted_run_goes_on(fake, capsys):
    fake.replies = [Reply(completion(NO)), Reply("gone", 404)]
    arguments = ("--num_generations", "2", "--num_critic_trials", "1")
    assert bestofn(fake, *arguments) == 2 and "photo_seed0.mp4: 100%" in capsys.readouterr().out
    assert not list(Path("out").glob("photo_seed1_*")) and not list(Path("out").glob(".*"))
    fake.replies = replies([YES])
    assert bestofn(fake, *arguments) == 0 and len(fake.asked) == 3
    assert json.loads(Path("out/best-of-n.json").read_text())["best"] == "out/photo_seed0.mp4"


def test_videos_that_are_there_are_judged_without_a_bundle(fake, monkeypatch, capsys):
    assert run("text2world", "--prompt", "x", *SMALL, "--save_path", "mine/b.mp4") == 0
    Path("mine/a.mp4").write_bytes(Path("mine/b.mp4").read_bytes())
    monkeypatch.setenv("WORLDRT_BUNDLES", "nowhere")
    capsys.readouterr()
    fake.replies = replies([YES], [NO])
    named = ("--critic_url", fake.url, "--critic_model", "m", "--skip_generation", "--num_critic_trials", "1")
    assert run("bestofn", *named, "--save_path", "mine", "--json") == 0
    ranking = json.loads(capsys.readouterr().out)
    assert [Path(candidate["video"]).name for candidate in ranking["candidates"]] == ["b.mp4", "a.mp4"]
    assert run("bestofn", *named, "--save_path", "empty") == 2 and "no .mp4" in capsys.readouterr().err


def test_a_video_that_cannot_be_read_is_left_out(fake, capsys):
    assert run("text2world", "--prompt", "x", *SMALL, "--save_path", "mine/b.mp4") == 0
    Path("mine/a.mp4").write_text("not a film")
    fake.replies = replies([NO])
    named = ("--critic_url", fake.url, "--critic_model", "m", "--skip_generation", "--num_critic_trials", "1")
    assert run("bestofn", *named, "--save_path", "mine") == 0
    shown = capsys.readouterr()
    assert "mine/a.mp4: cannot be read" in shown.err and shown.out.endswith("best: mine/b.mp4\n")
    Path("mine/b.mp4").unlink()
    assert run("bestofn", *named, "--save_path", "mine") == 2 and "cannot be read" in capsys.readouterr().err


def test_a_critic_that_answers_nonsense_gives_no_score_and_exit_code_2(fake, capsys):
    fake.replies = replies([NONSENSE, ""])
    assert bestofn(fake, "--num_generations", "1", "--num_critic_trials", "2") == 2
    assert "no score" in capsys.readouterr().out and Path("out/photo_seed0_unscored.html").is_file()
    assert json.loads(Path("out/best-of-n.json").read_text())["best"] is None


def test_a_model_of_a_folder_judges(work, capsys):
    qwen.make(work / "tiny")
    Path("short.txt").write_text("Judge.")
    critic = ("--checkpoint_dir", "tiny", "--critic_device", "cpu", "--critic_prompt", "short.txt")
    arguments = (*SMALL, "--input_path", "photo.png", "--num_generations", "1", "--num_critic_trials", "2")
    import worldrt.runtime.reason.critic as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SAMPLING", module.replace(module.SAMPLING, max_tokens=8))
        assert run("bestofn", "--prompt", "x", *arguments, *critic, "--save_path", "out") == 2
    assert "no score" in capsys.readouterr().out
    facts = json.loads(Path("out/photo_seed0_unscored.json").read_text())
    assert len(facts["responses"]) == 2 and facts["made_from"]["critic"] == str(work / "tiny")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "no critic: give --critic_path"),
        (("--critic_path", "absent"), "expected the folder of a model"),
        (("--critic_url", "http://x/v1"), "--critic_model"),
        (
            ("--critic_url", "http://x/v1", "--critic_model", "m", "--num_generations", "0"),
            "num_generations: expected 1",
        ),
        (("--critic_url", "http://x/v1", "--critic_model", "m", "--num_critic_trials", "0"), "num_critic_trials"),
        (("--critic_url", "http://x/v1", "--critic_model", "m", "--input_path", "absent.png"), "absent.png"),
        (("--critic_url", "http://x/v1", "--critic_model", "m", "--critic_prompt", "absent.txt"), "absent.txt"),
    ],
)
def test_mistakes_are_said_before_any_work(work, capsys, flags, text):
    before = sorted(work.iterdir())
    assert run("bestofn", "--prompt", "x", *SMALL, "--input_path", "photo.png", "--save_path", "out", *flags) == 2
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 1 and sorted(work.iterdir()) == before


class Answers:
    """A chat that finds the first clip wrong and the others not."""

    name = "answers"

    def __init__(self):
        self.asked, self.unloaded = 0, False

    def ask(self, question, sampling, count=1, progress=None):
        self.asked += 1
        return [YES if self.asked == 1 else NO] * count

    def unload(self):
        self.unloaded = True


def wanted(work):
    request = Request(prompt="a car", steps=1, num_frames=5, width=48, height=32)
    return BestOfNRequest(Job(request, str(work / "out"), Path("photo.png")), generations=2, trials=1)


def test_python_yields_candidates_as_they_are_judged(work, nano):
    chat = Answers()
    with BestOfN.open(nano.folder, critic=Critic(chat)) as best:
        judged = best(wanted(work))
        first = next(judged)
        assert (first.score, chat.asked) == (0.0, 1) and first.report.is_file()
        assert [candidate.score for candidate in judged] == [1.0]
    assert chat.unloaded


def test_judging_ends_when_an_observer_raises(work, nano):
    class Watched(Plain):
        def progress(self, stage, done, total):
            if stage.startswith("critic"):
                raise Cancelled

    class Telling(Answers):
        def ask(self, question, sampling, count=1, progress=None):
            progress(0, count)
            return super().ask(question, sampling, count)

    with BestOfN.open(nano.folder, critic=Critic(Telling()), observe=Watched) as best, pytest.raises(Cancelled):
        list(best(wanted(work)))
    assert sorted(path.suffix for path in (work / "out").iterdir()) == [".json", ".json", ".mp4", ".mp4"]


def test_other_ways_to_show_a_clip_are_other_reviews(fake, capsys):
    fake.replies = replies([NO])
    arguments = ("--num_generations", "1", "--num_critic_trials", "1")
    assert bestofn(fake, *arguments, "--critic_frames", "3") == 0
    content = fake.asked[0]["messages"][1]["content"]
    assert [part["type"] for part in content].count("image_url") == 3
    assert bestofn(fake, *arguments, "--critic_shown", "video") == 2 and "--overwrite" in capsys.readouterr().err
    assert bestofn(fake, *arguments, "--critic_shown", "video", "--overwrite") == 0
    assert fake.asked[1]["messages"][1]["content"][0]["type"] == "video_url"


def test_a_video_that_the_guardrail_blocks_is_left_out(work, nano):
    class Guard:
        blocks, seen = (1,), 0

        def check_text(self, text, *_):
            pass

        def frames(self, frames, *_):
            self.seen += 1
            if self.seen in self.blocks:
                raise BlockedError("unsafe")
            return frames

        def unload(self):
            pass

    with BestOfN.open(nano.folder, critic=Critic(Answers())) as best:
        best.generator.guard = Guard()
        assert [candidate.video.name for candidate in best(wanted(work))] == ["photo_seed1.mp4"]
        assert not (work / "out" / "photo_seed0.mp4").exists()
        for path in (work / "out").iterdir():
            path.unlink()
        best.generator.guard.blocks = range(99)
        with pytest.raises(BlockedError):
            list(best(wanted(work)))
    assert not list((work / "out").iterdir())
