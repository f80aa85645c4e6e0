"""Several clips together and shortcuts, on a tiny network, against the same loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.denoise import DenoiserShape
from worldrt.runtime.noise import initial_noise
from worldrt.runtime.samplers import rectified_flow_ab2, rectified_flow_euler
from worldrt.runtime.sampling import sample
from worldrt.runtime.shortcuts import Shortcuts
from worldrt.runtime.skipping import Skipping, cosine, products
from worldrt.runtime.steps import Steps

SHAPE = DenoiserShape(16, 3, 4, 6, 7)
TABLE = rectified_flow_ab2(12, 80.0, 0.002)
FORMS = [("whole", "batched"), ("whole", "sequential"), ("block", "batched"), ("block", "sequential")]


class Inputs:
    """Seeded inputs of some clips: texts (N, 2, text, D), clean frames and noise (N, C, T, h, w)."""

    def __init__(self, clips=1):
        rngs = [np.random.default_rng(seed) for seed in range(clips)]
        self.texts = np.stack([rng.standard_normal((2, 7, 24), np.float32) for rng in rngs])
        self.clean = np.concatenate([rng.standard_normal(SHAPE.latents(), np.float32) for rng in rngs])
        self.noise = np.concatenate([initial_noise(SHAPE.latents(), seed, 80.0) for seed in range(clips)])

    def of(self, clip):
        made = Inputs.__new__(Inputs)
        made.texts, made.clean, made.noise = (a[clip : clip + 1] for a in (self.texts, self.clean, self.noise))
        return made

    def bind(self, model, guided=True, alone=True):
        clips = len(self.texts)
        shape = DenoiserShape(*SHAPE.latents()[1:], 7, clips)
        bound = model.bind(shape, guided=guided, alone=alone)
        bound.fill_text(self.texts[:, 0], self.texts[:, 1])
        bound.fill("position", np.arange(SHAPE.frames, dtype=np.float32))
        bound.fill("clean", self.clean)
        bound.fill("mask", np.tile(np.array([[1, 0, 0]], np.float32), (clips, 1)))
        return bound


def run(model, inputs, table=TABLE, guidance=7.0, **options):
    """The result, and what `Skipping` counted."""
    bound = inputs.bind(model, guided=guidance != 0)
    for _ in sample(bound, table, inputs.noise, guidance=guidance, **options):
        pass
    return np.array(bound.x.numpy())


def counted(model, inputs, shortcuts, table=TABLE, guidance=7.0):
    """What the rows of a run came to, and its result."""
    bound = inputs.bind(model)
    bound.fill("x", inputs.noise)
    skipping = Skipping(Steps(bound, table, guidance, None), shortcuts)
    kinds, x = [], []
    for index in range(len(table)):
        before = dict(skipping.evaluations)
        skipping.step(index)
        kinds += [kind for kind, count in skipping.evaluations.items() if count > before[kind]]
        x.append(np.array(bound.x.numpy()))
    return kinds, x


class Reference:
    """The network evaluated for one text at a time, and everything else in float64."""

    def __init__(self, model, inputs):
        self.bound = inputs.bind(model, guided=False)
        self.texts = inputs.texts[0]

    def x0(self, x, sigma, text):
        self.bound.fill_text(self.texts[text], None)
        self.bound.fill("x", x.astype(np.float32))
        self.bound.fill("level", np.full((1, SHAPE.frames), sigma, np.float32))
        self.bound.run()
        return self.bound.cond.numpy().astype(np.float64)

    def guided(self, x, sigma, guidance=7.0):
        cond = self.x0(x, sigma, 0)
        return cond + guidance * (cond - self.x0(x, sigma, 1)) if guidance else cond


def near(actual, expected, share=2e-5):
    assert np.abs(expected).max() > 0.1
    assert np.abs(actual - expected).max() <= share * np.abs(expected).max()


# Nothing left out


@pytest.mark.parametrize(("form", "guidance"), FORMS)
def test_shortcuts_that_are_off_change_no_bit(tiny_denoiser, form, guidance):
    """Neither does binding for them, nor an interval that holds every level."""
    model, inputs = tiny_denoiser(4, form, guidance), Inputs()
    bound = inputs.bind(model, alone=False)
    for _ in sample(bound, TABLE, inputs.noise, guidance=7.0):
        pass
    plain = np.array(bound.x.numpy())
    for shortcuts in (None, Shortcuts(), Shortcuts(guidance_interval=(0, 1e6)), Shortcuts(1e-9)):
        assert np.array_equal(run(model, inputs, shortcuts=shortcuts), plain)
    assert not Shortcuts()


def test_mistakes_in_shortcuts_are_named():
    for wrong, text in (
        ({"step_cache": -0.1}, "step_cache: expected 0"),
        ({"step_cache": float("nan")}, "step_cache"),
        ({"guidance_interval": (3.0, 3.0)}, "LOW < HIGH"),
        ({"guidance_interval": (0.0, float("inf"))}, "LOW < HIGH"),
        ({"adaptive_guidance": 1.01}, "cosine"),
    ):
        with pytest.raises(InputError, match=text):
            Shortcuts(**wrong)


# Clips together


@pytest.mark.parametrize(("form", "guidance"), FORMS)
@pytest.mark.parametrize("scale", [7.0, 0.0])
def test_clips_together_are_those_of_one_by_one(tiny_denoiser, form, guidance, scale):
    """Each with its own noise, texts and known frames."""
    model, inputs = tiny_denoiser(4, form, guidance), Inputs(3)
    together = run(model, inputs, guidance=scale)
    for clip in range(3):
        near(together[clip], run(model, inputs.of(clip), guidance=scale)[0])
    assert np.abs(together[0] - together[1]).max() > 0.1
    assert np.array_equal(together[:, :, 0], inputs.clean[:, :, 0])


def test_clips_together_share_one_evaluation_per_row(tiny_denoiser):
    bound = Inputs(3).bind(tiny_denoiser(4, "block", "batched"), alone=False)
    assert (bound.batch, bound.clips, len(bound.calls)) == (6, 3, 5)


# Evaluations left out


@pytest.mark.parametrize("table", [TABLE, rectified_flow_euler(12, 80.0, 0.002)], ids=["ab2", "euler"])
@pytest.mark.parametrize(("form", "guidance"), FORMS)
def test_cached_rows_are_those_of_the_formula(tiny_denoiser, form, guidance, table):
    """With the rows that were left out known, every state is that of a loop in float64 that holds the noise."""
    model, inputs = tiny_denoiser(4, form, guidance), Inputs()
    kinds, states = counted(model, inputs, Shortcuts(step_cache=0.6), table)
    assert kinds[0] == kinds[-1] == "guided" and 2 <= kinds.count("reused") < len(table) - 2
    reference, x, previous, noise = Reference(model, inputs), inputs.noise.astype(np.float64), 0.0, None
    for sigma, (a, b, c, _), kind, state in zip(table.levels, table.coefficients, kinds, states, strict=True):
        if kind == "guided":
            x0 = reference.guided(x, sigma)
            noise = (x - x0) / sigma
        else:
            x0 = x - sigma * noise
        x, previous = a * x + b * x0 + c * previous, x0
        near(state, x, 1e-4)


@pytest.mark.parametrize("form", ["whole", "block"])
def test_both_ways_of_guidance_leave_out_the_same_rows(tiny_denoiser, form):
    kinds = [counted(tiny_denoiser(4, form, g), Inputs(), Shortcuts(0.6))[0] for g in ("batched", "sequential")]
    assert kinds[0] == kinds[1]


def test_a_larger_threshold_leaves_out_more_and_known_frames_stay(tiny_denoiser):
    model, inputs = tiny_denoiser(4, "block", "batched"), Inputs()
    counts, errors, whole = [], [], run(model, inputs)
    for threshold in (0.05, 0.4, 2.0):
        kinds, states = counted(model, inputs, Shortcuts(threshold))
        counts.append(kinds.count("reused"))
        errors.append(np.abs(states[-1] - whole).mean())
        assert np.array_equal(states[-1][:, :, 0], inputs.clean[:, :, 0])
    assert counts == sorted(set(counts)) and errors == sorted(errors)


def test_a_row_that_is_left_out_runs_the_first_block_alone(tiny_denoiser):
    """In block form; in whole form nothing."""
    for form, cost in (("block", 2), ("whole", 0)):
        model, inputs = tiny_denoiser(6, form, "batched"), Inputs()
        bound, done = inputs.bind(model), [0]

        def count(call, done=done):
            def run(inner=call.run):
                done[0] += 1
                inner()

            return type(call)(call.buffers, run)

        calls = tuple(count(call) for call in bound.calls)
        bound = type(bound)(**{**vars(bound), "calls": calls})
        bound.fill("x", inputs.noise)
        skipping = Skipping(Steps(bound, TABLE, 7.0, None), Shortcuts(0.6))
        for index in range(len(TABLE)):
            skipping.step(index)
        kinds = skipping.evaluations
        assert kinds["reused"] >= 2
        assert done[0] == kinds["guided"] * len(calls) + kinds["reused"] * cost


# Guidance left out


@pytest.mark.parametrize(("form", "guidance"), FORMS)
def test_guidance_in_an_interval_is_that_of_the_formula(tiny_denoiser, form, guidance):
    model, inputs = tiny_denoiser(4, form, guidance), Inputs()
    kinds, states = counted(model, inputs, Shortcuts(guidance_interval=(0.5, 20.0)))
    reference, x, previous = Reference(model, inputs), inputs.noise.astype(np.float64), 0.0
    for sigma, (a, b, c, _), kind, state in zip(TABLE.levels, TABLE.coefficients, kinds, states, strict=True):
        assert kind == ("guided" if 0.5 <= sigma <= 20 else "alone")
        x0 = reference.guided(x, sigma, 7.0 if kind == "guided" else 0.0)
        x, previous = a * x + b * x0 + c * previous, x0
        near(state, x, 1e-4)
    assert {"guided", "alone"} == set(kinds)


@pytest.mark.parametrize(("form", "guidance"), FORMS)
def test_adaptive_guidance_ends_where_the_predictions_are_as_similar(tiny_denoiser, form, guidance):
    """Cosines of x0 in float64, over the frames that are not known."""
    model, inputs = tiny_denoiser(4, form, guidance), Inputs()
    reference, x, previous, cosines = Reference(model, inputs), inputs.noise.astype(np.float64), 0.0, []
    for sigma, (a, b, c, _) in zip(TABLE.levels, TABLE.coefficients, strict=True):
        cond, uncond = (reference.x0(x, sigma, text) for text in range(2))
        one, two = (x0[:, :, 1:].ravel() for x0 in (cond, uncond))
        cosines.append(one @ two / np.linalg.norm(one) / np.linalg.norm(two))
        x0 = cond + 7.0 * (cond - uncond)
        x, previous = a * x + b * x0 + c * previous, x0
    last = 5
    least = max(cosines[:last]) + 1e-6
    expected = next((i for i, value in enumerate(cosines) if value >= least), len(cosines) - 1)
    kinds, _ = counted(model, inputs, Shortcuts(adaptive_guidance=least))
    assert kinds == ["guided"] * (expected + 1) + ["alone"] * (len(TABLE) - expected - 1)
    assert "alone" in counted(model, inputs, Shortcuts(adaptive_guidance=min(cosines)))[0]


def test_a_row_without_guidance_evaluates_one_text(tiny_denoiser):
    """In a call of half the batch, or without the second call; memory is that of the guided ones."""
    for guidance, calls in (("batched", 5), ("sequential", 10)):
        bound = Inputs().bind(tiny_denoiser(4, "block", guidance))
        assert (len(bound.calls), len(bound.alone)) == (calls, 5)
        assert [call["text"].shape[0] for call in bound.alone[1:]] == [1] * 4
        assert bound.alone[-1]["x0"].pointer == bound.cond.pointer
        for one, both in zip(bound.alone, bound.calls, strict=False):
            assert {n: b.pointer for n, b in one.buffers.items()} == {n: b.pointer for n, b in both.buffers.items()}


def test_the_similarity_of_several_clips_is_that_of_the_least_similar():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((2, 3, 4))
    assert cosine(products(one, one)) == pytest.approx(1)
    assert cosine(products(one, np.stack((one[0], -one[1])))) == pytest.approx(-1)


def test_all_shortcuts_together_keep_the_formulas(tiny_denoiser):
    """An evaluation is not used again beyond the row at which guidance begins or ends."""
    model, inputs = tiny_denoiser(4, "block", "batched"), Inputs()
    kinds, _ = counted(model, inputs, Shortcuts(2.0, (0.5, 20.0)))
    inside = [0.5 <= sigma <= 20 for sigma in TABLE.levels]
    changes = [i for i in range(1, len(inside)) if inside[i] != inside[i - 1]]
    assert len(changes) == 2 and all(kinds[i] == ("guided" if inside[i] else "alone") for i in changes)
    assert kinds.count("reused") >= 4


def test_a_run_without_guidance_has_none_to_leave_out(tiny_denoiser):
    model, inputs = tiny_denoiser(4, "block", "batched"), Inputs()
    for plain, more in ((Shortcuts(), Shortcuts(0.0, (0.5, 20.0), 0.5)), (Shortcuts(0.6), Shortcuts(0.6, (0.5, 20.0)))):
        made = (run(model, inputs, guidance=0.0, shortcuts=shortcuts) for shortcuts in (plain, more))
        assert np.array_equal(*made)


@pytest.mark.parametrize("shortcuts", [None, Shortcuts(0.6), Shortcuts(guidance_interval=(0.5, 20.0))])
def test_a_run_that_stops_between_rows_leaves_the_denoiser_usable(tiny_denoiser, shortcuts):
    model, inputs = tiny_denoiser(4, "block", "batched"), Inputs()
    bound = inputs.bind(model)
    loop = sample(bound, TABLE, inputs.noise, guidance=7.0, shortcuts=shortcuts)
    next(loop), next(loop)
    loop.close()
    for _ in sample(bound, TABLE, inputs.noise, guidance=7.0, shortcuts=shortcuts):
        pass
    assert np.array_equal(bound.x.numpy(), run(model, inputs, shortcuts=shortcuts))
