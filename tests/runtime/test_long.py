"""Films of several chunks: what is handed over, where there could be a seam, and what is asked of each chunk."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime import Observer, Request, Text2World, Video2World
from worldrt.runtime.images import cover
from worldrt.runtime.keep import Keep
from worldrt.runtime.long import chunked, of_chunk, prompts_of
from worldrt.runtime.observer import Cancelled
from worldrt.runtime.pipelines.ahead import Ahead
from worldrt.runtime.pipelines.base import encode_texts, sample_clip
from worldrt.runtime.pipelines.video2world import DEFAULT_NEGATIVE_PROMPT
from worldrt.runtime.request import Settings

TASK = "video2world"
DEADLINE_S = 120.0
CLIP = Request("a red car", steps=1, num_frames=9, width=48, height=32, seed=3)
FILM = replace(CLIP, num_chunks=3, chunk_prompts=("a red car", "it turns", "it stops"))


class Memory(Keep):
    """Keeps pieces in a dictionary."""

    def __init__(self):
        self.pieces = {}

    def load(self, name):
        return self.pieces.get(name)

    def save(self, name, piece):
        self.pieces[name] = piece.copy()


class Told(Observer):
    """Remembers its calls, and may cancel at one of those about sampling."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.calls, self.stop_at = [], stop_at

    def progress(self, stage, done, total):
        self.calls.append((stage, done, total))
        if stage == "video2world: sampling" and self.count(stage) == self.stop_at:
            raise Cancelled

    def count(self, stage):
        return sum(name == stage for name, _, _ in self.calls)


def frames_of(count, height=40, width=56):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def by_hand(world, request, clean):
    """Latents of one clip that starts with `clean`, without the film's code."""
    settings = world.settings(replace(request, num_chunks=1, chunk_prompts=()))
    texts = encode_texts(world.models, TASK, request.prompt, DEFAULT_NEGATIVE_PROMPT, Observer())
    known = clean.shape[2]
    conditions = {"clean": np.zeros((1, 16, 3, 4, 6), np.float32), "mask": np.zeros((1, 3), np.float32)}
    conditions["clean"][:, :, :known], conditions["mask"][:, :known] = clean, 1
    return sample_clip(world.models, TASK, settings, request.seed, texts, conditions, Observer())


@pytest.mark.parametrize("overlap", [1, 5])
def test_handed_over_latents_are_one_stream(nano_by_torch, overlap):
    """Chunk by chunk by hand: the last latents as they are, seed + index, a prompt each; all decoded in one go."""
    request, keep = replace(FILM, num_overlap_frames=overlap), Memory()
    known = (overlap + 3) // 4
    with Video2World.open(nano_by_torch.folder) as world:
        film = np.stack(list(world(request, frames_of(1), keep=keep)))
        vae = world.models.vae(TASK)
        clean, whole = vae.encode(cover(frames_of(1), 48, 32)), []
        for i, prompt in enumerate(request.chunk_prompts):
            latents = by_hand(world, replace(CLIP, prompt=prompt, seed=3 + i), clean)
            assert np.array_equal(latents, keep.pieces[f"chunk-{i:03}"])
            whole.append(latents[:, :, known if i else 0 :])
            clean = latents[:, :, -known:]
        expected = np.stack(list(vae.decode(np.concatenate(whole, axis=2))))
    assert len(film) == 9 + 2 * (9 - overlap)
    assert np.array_equal(film, expected)
    for before, after in ((0, 1), (1, 2)):  # the hand-over equals the run that it comes from, bit for bit
        tail = keep.pieces[f"chunk-{before:03}"][:, :, -known:]
        assert np.array_equal(keep.pieces[f"chunk-{after:03}"][:, :, :known], tail)


@pytest.mark.parametrize("overlap", [1, 5])
def test_handed_over_frames_are_clips_one_after_another(nano_by_torch, overlap):
    """As the official script does it, with the last frames of each clip as the input of the next."""
    request = replace(FILM, hand_over="frames")
    with Video2World.open(nano_by_torch.folder) as world:
        film = np.stack(list(world(request, frames_of(overlap))))
        given, expected = frames_of(overlap), []
        for i, prompt in enumerate(request.chunk_prompts):
            clip = list(world(replace(CLIP, prompt=prompt, seed=3 + i), given))
            expected += clip[overlap if i else 0 :]
            given = np.stack(clip[-overlap:])
    assert np.array_equal(film, np.stack(expected))


class Beside(Told):
    """Does not let the second chunk end before all frames of the first one were shown."""

    def __init__(self):
        super().__init__()
        self.begun, self.shown = threading.Event(), threading.Event()

    def progress(self, stage, done, total):
        super().progress(stage, done, total)
        if stage == "video2world: sampling" and self.count(stage) == 5:
            self.begun.set()
            assert self.shown.wait(DEADLINE_S)


def test_the_first_chunk_is_the_clip_alone_and_is_shown_while_the_second_one_is_sampled(nano_by_torch):
    told = Beside()
    with Video2World.open(nano_by_torch.folder) as world:
        clip = np.stack(list(world(CLIP, frames_of(1))))
        film = world(FILM, frames_of(1), told)
        first = [next(film)]
        assert told.begun.wait(DEADLINE_S)
        assert np.array_equal(np.stack([*first, *islice(film, 8)]), clip)
        assert told.count("video2world: sampling") == 5  # 0, 1 and 2 of the two evaluations of one step, and again
        told.shown.set()
        assert len(list(film)) == 16
    assert told.count("video2world: sampling") == 9
    assert [done for stage, done, _ in told.calls if stage == "video2world: decode"] == list(range(26))
    assert [done for stage, done, _ in told.calls if stage == "video2world: chunks"] == [0, 1, 2, 3]


def test_a_film_that_nobody_wants_any_more_is_sampled_no_further(nano_by_torch, monkeypatch):
    told, leave = Beside(), Ahead.__exit__

    def left(ahead, *error):
        ahead._stopped.set()
        told.shown.set()
        leave(ahead, *error)

    monkeypatch.setattr(Ahead, "__exit__", left)
    with Video2World.open(nano_by_torch.folder) as world:
        film = world(FILM, frames_of(1), told)
        next(film)
        assert told.begun.wait(DEADLINE_S)
        film.close()
    assert told.shown.is_set() and told.count("video2world: sampling") == 5
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.mark.parametrize("hand_over", ["latents", "frames"])
def test_kept_chunks_are_not_made_again(nano_by_torch, hand_over):
    """A cancelled run ends within one step, and the next one goes on with the same bytes."""
    request, keep = replace(FILM, hand_over=hand_over), Memory()
    with Video2World.open(nano_by_torch.folder) as world:
        whole = np.stack(list(world(request, frames_of(1))))
        told = Told(stop_at=4)  # as the second chunk begins
        film = world(request, frames_of(1), told, keep=keep)
        assert np.array_equal(np.stack(list(islice(film, 9))), whole[:9])
        with pytest.raises(Cancelled):
            next(film)
        assert list(keep.pieces) == ["chunk-000"]
        again = Told()
        resumed = np.stack(list(world(request, frames_of(1), again, keep=keep)))
    assert np.array_equal(resumed, whole)
    assert again.count("video2world: sampling") == 6 and again.count("video2world: encode") == 0


def test_cancelled_within_one_step_of_any_chunk(nano_by_torch):
    stop = Told(stop_at=5)
    with Video2World.open(nano_by_torch.folder) as world:
        frames = world(FILM, frames_of(1), stop)
        with pytest.raises(Cancelled):
            list(frames)
        assert stop.count("video2world: sampling") == 5
        assert len(list(world(CLIP, frames_of(1)))) == 9  # the models can be used again


def test_one_model_at_a_time_gives_the_same_film(nano_by_torch):
    """With offloading all chunks are sampled before any is decoded."""
    told = Told()
    with Video2World.open(nano_by_torch.folder) as world:
        expected = np.stack(list(world(FILM, frames_of(1))))
    with Video2World.open(nano_by_torch.folder, offload=True) as world:
        film = world(FILM, frames_of(1), told)
        first = next(film)
        assert told.count("video2world: sampling") == 9
        assert np.array_equal(np.stack([first, *film]), expected)


def test_a_decoder_that_makes_room_between_chunks_gives_the_same_film(nano_by_torch, monkeypatch):
    """On a device whose memory is short, all that decodes goes while the next chunk is sampled."""
    with Video2World.open(nano_by_torch.folder) as world:
        expected = np.stack(list(world(FILM, frames_of(1))))
        monkeypatch.setattr(type(world.models), "fits", lambda self, task, part: False)
        vae, found = world.models.vae(TASK), []

        class Watch(Told):
            def progress(self, stage, done, total):
                if stage == "video2world: sampling":
                    found.append(vae.loaded)

        assert np.array_equal(np.stack(list(world(FILM, frames_of(1), Watch()))), expected)
    assert found == [False] * 9


def test_the_text_encoder_is_loaded_once_for_all_prompts(nano_by_torch):
    """It need not stay, nor come back for the prompt of each chunk."""
    loads = []
    with Video2World.open(nano_by_torch.folder, offload_text=True) as world:
        encoder = world.models.text(TASK)
        graph = encoder._opener.graph
        object.__setattr__(encoder._opener, "graph", lambda *names: loads.append(names) or graph(*names))
        list(world(FILM, frames_of(1)))
        assert len(loads) == 1 and not encoder.loaded


def test_text2world_keeps_its_picture(nano_by_torch):
    keep, told, request = Memory(), Told(), replace(CLIP, num_chunks=2)
    with Text2World.open(nano_by_torch.folder) as world:
        film = np.stack(list(world(request, keep=keep)))
        assert len(film) == 17 and list(keep.pieces) == ["picture", "chunk-000", "chunk-001"]
        del keep.pieces["chunk-001"]
        again = np.stack(list(world(request, told, keep=keep)))
    assert np.array_equal(film, again)
    assert told.count("text2image: sampling") == 0 and told.count("video2world: sampling") == 3


NUMBERS = Settings(1280, 704, 16, 93, 7.0, "rectified_flow_ab2", 35, 80.0, 0.002, 7.0)


@pytest.mark.parametrize(("frames", "chunks", "overlap", "total"), [
    (93, 1, 1, 93), (93, 6, 1, 553), (93, 6, 5, 533), (61, 3, 1, 181), (61, 3, 5, 173), (9, 2, 5, 13),
])  # fmt: skip
def test_how_many_frames_a_film_has(frames, chunks, overlap, total):
    """The same for both ways of handing over: shared frames are there once."""
    settings = chunked(replace(NUMBERS, num_frames=frames), replace(CLIP, num_chunks=chunks), overlap, temporal=4)
    assert settings.total_frames == total


def test_what_is_asked_of_a_chunk():
    assert of_chunk(FILM, 2) == replace(FILM, prompt="it stops", seed=5)
    assert of_chunk(replace(CLIP, num_chunks=2), 1) == replace(CLIP, num_chunks=2, seed=4)
    assert prompts_of(FILM) == ("a red car", "it turns", "it stops")


@pytest.mark.parametrize(("wrong", "text"), [
    ({"num_chunks": 0}, "num_chunks: expected 1 to 10000, got 0"),
    ({"num_chunks": 10001}, "num_chunks: expected 1 to 10000, got 10001"),
    ({"num_chunks": 2}, "expected one for each of 2 chunk"),
    ({"chunk_prompts": ("a", " ", "c")}, "number 2 is empty"),
    ({"chunk_prompts": ("a", "b", "\0")}, "number 3: it is not UTF-8"),
    ({"num_overlap_frames": 3}, "expected 1 or 5"),
    ({"num_overlap_frames": 0}, "expected 1 or 5"),
    ({"num_overlap_frames": 9}, "less than the 9 frames"),
    ({"hand_over": "tape"}, "expected latents or frames, got 'tape'"),
    ({"seed": 2**32 - 2}, "chunk i takes seed"),
    ({"edit_strength": 0.5}, "one clip is edited at a time"),
    ({"chunk_prompts": ("a", "b", "word " * 10000)}, "10000 words"),
])  # fmt: skip
def test_films_that_cannot_be_made(nano_by_torch, wrong, text):
    with Video2World.open(nano_by_torch.folder) as world, pytest.raises(InputError, match=text):
        world.settings(replace(FILM, **wrong))
