"""The guard as a whole: frames stream through it a few at a time, and whatever fails lets nothing pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from worldrt.engine.errors import BlockedError, CheckpointError, DeviceMemoryError
from worldrt.kernels import rgb_to_yuv420
from worldrt.runtime import Observer, Request, Text2Image, Text2World, Video2World
from worldrt.runtime.safety import guardrail, open_guard
from worldrt.runtime.safety.blocklist import Blocklist
from worldrt.runtime.safety.guardrail import AT_ONCE, Guardrail
from worldrt.runtime.safety.pixels import pixelated, planes, rgb_of
from worldrt.runtime.safety.word_lists import own_list

from ..fakes.guardrail import make_guardrail

SMALL = Request("a red car", steps=1, num_frames=5, width=48, height=32)


class Stub:
    """A part that does as it is told, and notes where it was."""

    name = "stub"

    def __init__(self, answer=None, at=None):
        self.answer, self.at, self.seen, self.places = answer, at, [], []

    def to(self, device):
        self.places.append(device)

    def unload(self):
        self.places.append("away")

    def refuses(self, given):
        if isinstance(self.answer, BaseException):
            raise self.answer
        self.seen.append(given)
        if isinstance(given, str):
            return self.answer
        start = sum(map(len, self.seen[:-1]))
        return [self.answer if start + i == self.at else None for i in range(len(given))]

    def boxes(self, frame):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer or []


def clip(count=20, height=8, width=12):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def test_frames_stream_through_unchanged_and_in_order():
    frames, taken = clip(), []
    source = (taken.append(i) or frame for i, frame in enumerate(frames))
    passed = Guardrail([], Stub(), Stub()).frames(source)
    np.testing.assert_array_equal(next(passed), frames[0])
    assert len(taken) == AT_ONCE, "no more is held than is looked at together"
    np.testing.assert_array_equal(np.stack(list(passed)), frames[1:])


def test_an_unsafe_frame_ends_the_video_and_none_of_its_batch_is_shown():
    passed, shown = Guardrail([], Stub("violence", at=AT_ONCE + 3)).frames(iter(clip())), []
    with pytest.raises(BlockedError, match=f"frame {AT_ONCE + 3}: the stub of the guardrail refuses it: violence"):
        shown.extend(passed)
    assert len(shown) <= AT_ONCE


@pytest.mark.parametrize("error", [RuntimeError("CUDA error\nat x.cu"), MemoryError(), KeyError("x"), ValueError()])
def test_a_part_that_fails_refuses(error):
    said = "could not check it, which counts as refused"
    with pytest.raises(BlockedError, match=f"prompt: .*{said}"):
        Guardrail([Stub(error)]).check_text("x")
    with pytest.raises(BlockedError, match=f"frames 0 to {AT_ONCE - 1}: .*{said}"):
        list(Guardrail([], Stub(error)).frames(iter(clip())))
    with pytest.raises(BlockedError, match=f"frame 0: .*{said}"):
        list(Guardrail([], Stub(), Stub(error)).frames(iter(clip())))


def test_a_gpu_that_is_full_is_said_with_what_helps():
    with pytest.raises(DeviceMemoryError, match="stub of the guardrail; --offload_guardrail"):
        Guardrail([Stub(torch.OutOfMemoryError("CUDA out of memory"))]).check_text("x")


def test_a_model_that_does_not_load_is_not_asked_to_go_home(monkeypatch):
    monkeypatch.setattr(guardrail, "free_cuda", lambda: None)

    class Damaged(Stub):
        def to(self, device):
            super().to(device)
            raise CheckpointError("damaged")

    part = Damaged()
    with pytest.raises(CheckpointError, match="damaged"):
        Guardrail([part], device="cuda:0", offload=True).check_text("x")
    assert part.places == ["cuda:0"]


def test_too_few_answers_refuse():
    class Lazy(Stub):
        def refuses(self, given):
            return [None] * (len(given) - 1)

    with pytest.raises(BlockedError, match="7 answers for 8 frames"):
        list(Guardrail([], Lazy()).frames(iter(clip())))


def test_an_interruption_and_an_error_of_the_source_stay_what_they_are():
    def source(error):
        yield from clip(3)
        raise error

    for error in (ZeroDivisionError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            list(Guardrail([], Stub()).frames(source(error)))
    with pytest.raises(KeyboardInterrupt):
        Guardrail([Stub(KeyboardInterrupt())]).check_text("x")


def test_the_prompt_is_not_in_the_error():
    secret = "my own idea of a genocide in Atlantis"
    with pytest.raises(BlockedError) as error:
        Guardrail([Blocklist(own_list())]).check_text(secret, "refined prompt")
    assert str(error.value).startswith("refined prompt: the blocklist of the guardrail refuses it: word 6 (hate)")
    assert "Atlantis" not in str(error.value) and "genocide" not in str(error.value)
    with pytest.raises(BlockedError, match=r"RuntimeError: cannot read \.\.\.$"):
        Guardrail([Stub(RuntimeError(f"cannot read {secret}"))]).check_text(secret)


@pytest.mark.parametrize("offload", [False, True])
def test_with_offload_models_are_on_the_gpu_only_while_they_check(monkeypatch, offload):
    freed = []
    monkeypatch.setattr(guardrail, "free_cuda", lambda: freed.append(True))
    text, video, faces = Stub(), Stub(), Stub()
    guard = Guardrail([text], video, faces, device="cuda:0", offload=offload)
    guard.check_text("x")
    assert text.places == ["cuda:0", "cpu"][: 1 + offload]
    there = []
    source = (there.append(video.places[-1:] + faces.places[-1:]) or frame for frame in clip(40))
    assert len(list(guard.frames(source))) == 40
    assert there[0] == [] and there[-1] == [["cuda:0"] * 2, ["cpu"] * 2][offload], "where they are as frames are made"
    assert len(freed) == 3 * offload
    guard.unload()
    assert {stub.places[-1] for stub in (text, video, faces)} == {"away"}


def test_the_time_that_checking_takes_is_told():
    observer = Observer()
    list(Guardrail([], Stub()).frames(iter(clip()), observer=observer))
    assert "guardrail" in observer.timings.seconds


def test_a_face_becomes_flat_blocks_and_the_rest_stays():
    frame = clip(1, 40, 60)[0]
    covered = pixelated(frame, [(10, 5, 40, 30)], "rgb24")
    inside = covered[5:30, 10:40]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) <= 25
    outside = np.ones(frame.shape[:2], bool)
    outside[5:30, 10:40] = False
    np.testing.assert_array_equal(covered[outside], frame[outside])
    np.testing.assert_array_equal(covered[5, 10], np.rint(frame[5:10, 10:16].mean((0, 1))))
    assert not np.shares_memory(covered, frame) and pixelated(frame, [], "rgb24") is frame


def test_faces_at_the_edges_and_out_of_the_picture_are_cut():
    frame = clip(1, 40, 60)[0]
    covered = pixelated(frame, [(-10, -10, 8, 8), (50, 30, 90, 70), (100, 100, 140, 140)], "rgb24")
    assert (covered[:8, :8] != frame[:8, :8]).any() and (covered[30:, 50:] != frame[30:, 50:]).any()
    np.testing.assert_array_equal(covered[8:30], frame[8:30])


@pytest.mark.parametrize("pixel_format", ["nv12", "yuv420p"])
def test_planes_are_seen_in_colour_and_pixelated_in_place(pixel_format):
    """Against the kernel that makes planes of RGB, on a picture whose 2x2 pixels share a colour."""
    rgb = clip(1, 16, 24)[0].repeat(2, 0).repeat(2, 1)
    frame = rgb_to_yuv420(rgb[None], layout="nv12" if pixel_format == "nv12" else "i420")[0]
    assert np.abs(rgb_of(frame, pixel_format).astype(int) - rgb).max() <= 3, "limited range rounds"
    covered = pixelated(frame, [(8, 8, 32, 24)], pixel_format)
    assert covered.shape == frame.shape and covered.dtype == np.uint8
    seen = rgb_of(covered, pixel_format)
    assert len(np.unique(seen[8:24, 8:32].reshape(-1, 3), axis=0)) <= 100 < 12 * 8 * 4
    assert len(np.unique(planes(covered, pixel_format)[0][8:24, 8:32])) <= 25
    np.testing.assert_array_equal(seen[26:], rgb_of(frame, pixel_format)[26:])
    for plane in planes(pixelated(frame, [(9, 9, 31, 23)], pixel_format), pixel_format)[1:]:
        cells = plane[4:12, 4:16].reshape(-1, plane.shape[-1])  # with those that the box covers in part
        assert len(np.unique(cells, axis=0)) <= 25 < len(cells)


def test_a_guard_of_weights_checks_words_text_frames_and_faces(tmp_path):
    frames = clip(3, 40, 60)
    guard = open_guard(make_guardrail(tmp_path / "strict", unsafe=3, faces=True))
    for text, reason in {
        "a zorble": "checkpoint's list",
        "quux plim": "checkpoint's list",
        "a brawl": "violent",
    }.items():
        with pytest.raises(BlockedError, match=reason):
            guard.check_text(text)
    guard.check_text("two zorbles and a kitten")
    with pytest.raises(BlockedError, match="frame 0: the video model .*: drugs"):
        list(guard.frames(iter(frames)))
    covered = list(open_guard(make_guardrail(tmp_path / "faces", faces=True)).frames(iter(frames)))
    assert len(covered) == 3 and all((a != b).any() for a, b in zip(covered, frames, strict=True))
    plain = list(open_guard(make_guardrail(tmp_path / "plain")).frames(iter(frames)))
    np.testing.assert_array_equal(np.stack(plain), frames)


def test_without_weights_a_guard_is_only_had_for_words_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("WORLDRT_GUARDRAIL", raising=False)
    with pytest.raises(CheckpointError, match="--guardrail_path .*WORLDRT_GUARDRAIL.*--disable_guardrail"):
        open_guard()
    assert not open_guard(models=False).has_models
    monkeypatch.setenv("WORLDRT_GUARDRAIL", str(make_guardrail(tmp_path)))
    assert open_guard().has_models and not open_guard(models=False).has_models


class Picky:
    """A guard that remembers what it was asked, and refuses the text or frame that it is told."""

    def __init__(self, text=None, frame=None):
        self.text, self.frame, self.asked, self.shown = text, frame, [], 0

    def check_text(self, text, what="prompt"):
        self.asked.append((what, text))
        if text == self.text:
            raise BlockedError("text")

    def frames(self, frames, pixel_format="rgb24", observer=None):
        for index, frame in enumerate(frames):
            if index == self.frame:
                raise BlockedError("frame")
            self.shown += 1
            yield 255 - frame

    def unload(self):
        pass


def test_pipelines_show_prompts_and_frames_to_their_guard(nano_by_torch):
    folder, guard = nano_by_torch.folder, Picky()
    with Text2World.open(folder) as plain, Text2World.open(folder, guard=guard) as guarded:
        expected = list(plain(SMALL))
        np.testing.assert_array_equal(list(guarded(SMALL)), [255 - frame for frame in expected])
    assert guard.asked == [("prompt", SMALL.prompt)] and guard.shown == 5, "the picture between is not shown twice"
    with Text2Image.open(folder) as plain, Text2Image.open(folder, guard=Picky()) as guarded:
        np.testing.assert_array_equal(guarded(SMALL), 255 - plain(SMALL))
    with Video2World.open(folder, guard=Picky(frame=2)) as world:
        frames = world(SMALL, clip(1, 32, 48)[0])
        assert len([next(frames), next(frames)]) == 2
        with pytest.raises(BlockedError):
            next(frames)


def test_a_refused_prompt_is_refused_before_any_work(nano_by_torch):
    for kind, more in ((Text2World, ()), (Text2Image, ()), (Video2World, (clip(1)[0],))):
        observer = Observer()
        with kind.open(nano_by_torch.folder, guard=Picky(text=SMALL.prompt)) as make, pytest.raises(BlockedError):
            make(SMALL, *more, observer)
        assert not observer.timings.seconds


def test_the_refined_prompt_is_looked_at_too(nano_by_torch):
    guard = Picky(text="a blue car")
    with Text2World.open(nano_by_torch.folder, guard=guard) as world, pytest.raises(BlockedError):
        list(world(SMALL, None, lambda picture: replace(SMALL, prompt="a blue car")))
    assert guard.asked == [("prompt", "a red car"), ("refined prompt", "a blue car")] and guard.shown == 0
