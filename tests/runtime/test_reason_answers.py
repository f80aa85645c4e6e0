"""Answers of critics: what is read out of them, whatever they hold, and what it comes to."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldrt.runtime.reason.answers import Box, parse, verdict
from worldrt.runtime.reason.critic import Review

GOOD = """<think>
<overview>A cup &amp; a saucer slide over a table.</overview>
<component name="cup">
<analysis>The handle melts into the saucer at 1.2 s.</analysis>
<anomaly>Yes</anomaly>
<box start="1.2" end="2" left="100" top="250" right="400" bottom="1000">handle melts</box>
</component>
<component name='table'><analysis>Still.</analysis><anomaly> no </anomaly></component>
</think>
<answer>
Yes
</answer>"""


def test_all_parts_of_an_answer_are_read():
    answer = parse(GOOD)
    assert answer.anomaly is True and answer.overview == "A cup & a saucer slide over a table." and answer.text == GOOD
    cup, table = answer.components
    assert (cup.name, cup.anomaly, cup.analysis) == ("cup", True, "The handle melts into the saucer at 1.2 s.")
    assert cup.boxes == [Box(0.1, 0.25, 0.4, 1.0, 1.2, 2.0, "handle melts")]
    assert (table.name, table.anomaly, table.boxes) == ("table", False, [])


@pytest.mark.parametrize(
    ("text", "anomaly"),
    [
        ("<answer>No</answer>", False), ("<ANSWER> yes. </ANSWER>", True), ("x <answer>\n**No**\n</answer> y", False),
        ("<answer>No, nothing is wrong.</answer>", False), ("<answer>Yes", True),
        ("<answer>No</answer> wait <answer>Yes</answer>", True), ("<answer>&quot;No&quot;</answer>", False),
        ("", None), ("No", None), ("<answer></answer>", None), ("<answer>Yes | No</answer>", None),
        ("<answer>maybe</answer>", None), ("<answer>Nothing</answer>", None), ("<answer>Yesterday</answer>", None),
        ("<answer>Yes where the clip has a fault; No where it has none</answer>", None), ("answer: No", None),
        ("</answer>No<answer>", None), ("<script><answer>No</answer>", False), ("<!-- <answer>No</answer>", False),
        ("a < b <answer>No</answer>", False), ("<answer <answer>No</answer>", False),
    ],
)  # fmt: skip
def test_verdicts(text, anomaly):
    assert parse(text).anomaly is anomaly


@pytest.mark.parametrize(
    ("attributes", "box"),
    [
        ('left="0" top="0" right="500" bottom="500"', Box(0, 0, 0.5, 0.5)),
        ("bottom=500 right=500 top=0 left=-90 start=2s end=1.5s", Box(0, 0, 0.5, 0.5, 1.5, 2.0)),
        ('left="10%" top="0" right="9999" bottom="1"', Box(0.01, 0, 1, 0.001)),
        ('left="5" top="0" right="5" bottom="9"', None),
        ('left="0" top="0" right="500"', None),
        ('left="nan" top="0" right="inf" bottom="9"', None),
        ('left="9e999" top="0" right="5" bottom="9"', None),
        ('left="1500" top="0" right="1600" bottom="9"', None),
    ],
)
def test_boxes_lie_inside_the_frame_or_are_left_out(attributes, box):
    (component,) = parse(f'<component name="x"><box {attributes}/></component>').components
    assert component.boxes == ([] if box is None else [box])


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ('<component name="speed > 5" />', "speed > 5"), ("<component name='a &quot;b&quot;'>", 'a "b"'),
        ("<COMPONENT NAME = cup>", "cup"), ("<component name='driver's hand'>", "driver"), ("<component>", ""),
        ('<component id="3" name="x">', "x"), ("<component cup>", ""),
    ],
)  # fmt: skip
def test_names_of_components(tag, name):
    (component,) = parse(tag + "<anomaly>Yes</anomaly>").components
    assert (component.name, component.anomaly) == (name, True)


@given(st.text(max_size=300) | st.lists(st.sampled_from(
    ["<answer>", "</answer>", "<box ", "left=", '"', "<component name=", ">", "<", "&#x110000;", "&#0;", "No", "Yes"]
)).map("".join))  # fmt: skip
def test_nothing_that_a_model_says_raises(text):
    answer = parse(text)
    assert answer.anomaly in (True, False, None) and verdict(text) in (True, False, None)
    json.dumps(Review((answer,), {}).as_json())


@pytest.mark.parametrize(
    "piece",
    [
        "<component ",
        "<box left=",
        '<component name="',
        "<answer",
        "<",
        "left=",
        "&",
        "<box>",
        "a=b ",
        " ",
        "<box a=",
        "<box a ='",
    ],
)
def test_long_nonsense_takes_little_time(piece):
    start = time.process_time()
    answer, inside = parse(piece * (100_000 // len(piece))), parse("<box " + piece * (100_000 // len(piece)))
    assert time.process_time() - start < 2 and len(answer.components) <= 200 and inside.anomaly is None


def review(*texts):
    return Review(tuple(parse(text) for text in texts), {})


NO, YES, NONSENSE = "<answer>No</answer>", "<answer>Yes</answer>", "?"


@pytest.mark.parametrize(
    ("texts", "score", "suffix"),
    [
        ([NO] * 5, 1.0, "_score100"), ([YES] * 5, 0.0, "_score000"), ([NO] * 4 + [YES], 0.8, "_score080"),
        ([NO, NO, YES, NONSENSE], 2 / 3, "_score066"), ([NONSENSE] * 3, None, "_unscored"),
        ([NO] * 29 + [YES] * 71, 0.29, "_score029"),  # 100 * 0.29 is 28.999999999999996
    ],
)  # fmt: skip
def test_the_score_is_the_share_of_no_among_the_verdicts(texts, score, suffix):
    made = review(*texts)
    assert (made.score, made.suffix) == (score, suffix)
