"""History guidance as weighted branches, against its formula written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldrt.runtime.schedule.guidance import Segment, classifier_free, history_guidance
from worldrt.runtime.schedule.law import Schedule, Term
from worldrt.runtime.schedule.plan import Plan

STEPS, HISTORY = 8, 3
levels = st.integers(0, STEPS)
segments = st.builds(
    Segment,
    st.sampled_from([0.5, 1.0, 1.5, -0.25]),
    st.none() | st.sets(st.integers(0, HISTORY - 1), min_size=1).map(lambda found: tuple(sorted(found))),
    levels,
    st.none() | levels,
)


@settings(max_examples=500, deadline=None)
@given(st.lists(segments, max_size=4), st.integers(0, 2**32 - 1))
def test_terms_sum_to_the_formula(chosen, seed):
    table = np.random.default_rng(seed).normal(size=(STEPS + 1,) * HISTORY)  # any function of the levels shown

    def seen(segment, level):
        slots = range(HISTORY) if segment.slots is None else segment.slots
        return table[tuple(level if slot in slots else STEPS for slot in range(HISTORY))]

    expected = table[(STEPS,) * HISTORY]
    for segment in chosen:
        end = STEPS if segment.end is None else segment.end
        expected += segment.weight * (seen(segment, segment.start) - seen(segment, end))
    terms = history_guidance(STEPS, HISTORY, chosen)
    assert sum(term.weight * table[term.noise] for term in terms) == pytest.approx(expected)
    assert len({term.noise for term in terms}) == len(terms), "equal terms are merged"
    Plan(Schedule(STEPS, 2, 1, HISTORY, terms=terms, fill="prefill"))


def test_plain_conditioning_is_one_evaluation_and_a_weight_adds_one():
    assert history_guidance(STEPS, HISTORY, [Segment(1.0)]) == (Term(1.0, noise=(0, 0, 0)),)
    assert history_guidance(STEPS, HISTORY, [Segment(3.0)]) == (
        Term(-2.0, noise=(STEPS,) * 3),
        Term(3.0, noise=(0, 0, 0)),
    )


def test_a_prompt_scale_multiplies_each_term():
    terms = classifier_free(history_guidance(STEPS, 1, [Segment(2.0)]), 4.0)
    assert {(t.model, t.noise): t.weight for t in terms} == {
        ("cond", (STEPS,)): -4.0,
        ("uncond", (STEPS,)): 3.0,
        ("cond", (0,)): 8.0,
        ("uncond", (0,)): -6.0,
    }
    assert classifier_free((Term(),), 1.0) == (Term(),)


def test_windows_without_history_need_one_evaluation():
    """Terms that differ in history alone are one where a window has none, as in the first rows of a cold start."""
    terms = history_guidance(STEPS, 2, [Segment(2.0)])
    plan = Plan(Schedule(STEPS, STEPS, 1, 2, terms=terms))
    assert [len(plan.row(number).calls[0].branches) for number in (0, STEPS, 3 * STEPS)] == [1, 2, 2]
    (branch,) = plan.row(0).calls[0].branches
    assert branch.weight == 1 and not branch.renoise
    without, full = plan.row(3 * STEPS).calls[0].branches
    assert (without.read_label, without.renoise) == ((STEPS, STEPS, STEPS), (STEPS, STEPS, 0))
    assert (full.read_label, full.renoise) == ((0, 0, STEPS), ())


def test_history_can_be_labelled_noisier_than_it_is():
    plan = Plan(Schedule(STEPS, 2, 1, 2, history_label=3, fill="prefill"))
    assert plan.steady[0].calls[0].branches[0].read_label[:2] == (3, 3)
    own = Plan(Schedule(STEPS, 2, 1, 2, terms=(Term(noise=(0, 4), label=(1, 5)),), fill="prefill"))
    branch = own.steady[0].calls[0].branches[0]
    assert branch.read_label[:2] == (1, 5) and branch.renoise[:2] == (0, 4)
