"""The blocklist: what it meets through disguises, and what it leaves alone."""

from __future__ import annotations

import pydoc_data.topics
import random
import subprocess
import sys
import time
import tracemalloc

import pytest

from worldrt.engine.errors import InputError
from worldrt.runtime.safety.blocklist import Blocklist
from worldrt.runtime.safety.word_lists import Entry, own_list, read_folder, read_list
from worldrt.runtime.safety.words import fold, inflected, one_edit_back, readings


@pytest.fixture(scope="module")
def own():
    return Blocklist(own_list())


@pytest.mark.parametrize(
    "text",
    [
        "cocaine", "COCAINE", "Cocaine.", '"cocaine"', "(cocaine)", "some cocaine, please",
        "ｃｏｃａｉｎｅ", "cócaïne", "c\u200bocai\u00adne", "𝐜𝐨𝐜𝐚𝐢𝐧𝐞",
        "c\ufe0focaine", "co\u3164caine", "c\u0336o\u0336c\u0336a\u0336ine", "c\u20ddocaine", "cocaine2", "4cocaine4",
        "сосаine", "cοcαine",  # Cyrillic and Greek letters that look like ours
        "c0caine", "c0c@1ne", "coca!ne", "coccaine", "cocanie", "cocaiiiine",
        "c-o-c-a-i-n-e", "c o c a i n e", "c.o.c.a.i.n.e", "co-caine", "co_caine", "c*caine", "coc**ne",
        "cocaines", "cocaine's", "the cocaine/heroin trade",
    ],
)  # fmt: skip
def test_a_word_is_met_in_its_disguises(own, text):
    assert "drugs" in (own.refuses(text) or "")


@pytest.mark.parametrize("sign", [".", "/", ",", "-", "_", "'", "·", "😀", "\u2800", "\u0610", "\0", "---"])
def test_a_short_word_is_met_whatever_sign_is_put_into_it(own, sign):
    assert "profanity" in (own.refuses(f"oh sh{sign}it, he said") or "")


@pytest.mark.parametrize("text", ["push/it", "mis.hit", "and/or", "he/she/it", "bush,it", "wash-it"])
def test_words_that_a_sign_divides_are_not_met_inside_each_other(own, text):
    assert own.refuses(text) is None


@pytest.mark.parametrize(
    "text", ["he tortured them", "torturing", "tortures", "mutilating", "massacres", "decapitated"]
)
def test_a_word_is_met_with_its_endings(own, text):
    assert "violence" in (own.refuses(text) or "")


@pytest.mark.parametrize(
    "text",
    ["a school shooting", "School\n\tshootings", "school-shooting", "a sch00l shooting!", "mass, shooting"],
)
def test_a_phrase_is_met_across_spaces_hyphens_and_signs(own, text):
    assert "violence" in (own.refuses(text) or "")


@pytest.mark.parametrize("text", ["self-harm", "self harm", "selfharm", "SELF–HARM"])
def test_a_hyphenated_entry_is_met_in_every_spelling(own, text):
    assert "self-harm" in (own.refuses(text) or "")


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe, Penistone, Sussex, Essex, Middlesex, Clitheroe and Lightwater",
        "the heroine and other heroines of the opera", "a shiitake mushroom, a shih tzu, mishit the ball",
        "an assassin, a classic bass, grass, passages, an assistant, the embassy, a cassette",
        "a cocktail in a cockpit beside a peacock and a cockatoo, a shuttlecock",
        "Dick Van Dyke, Moby Dick and Hancock", "a cumulus cloud, a document, a cucumber",
        "a therapist and his canal", "scrap metal, drapes and grapes", "sextant, sextet, unisex, asexual reproduction",
        "an analyst analyses an analogue signal", "he shot a film; shooting a movie at school",
        "fcuk", "a duck, a truck, a bucket", "455 5417 8008 at 1st and 2nd street, 4x4, C++, R&B, AC/DC, $100",
        "**bold** text, 2 * 3 * 4, a * b", "a b c d e f g, x, y, z", "Gore-Tex and Al Gore", "a turtle and a tortoise",
        "genetics, genes, Geneva and the genie", "рот, суп, тор и хор", "一只红色的猫", "قطة حمراء", "",
    ],
)  # fmt: skip
def test_ordinary_words_pass(own, text):
    assert own.refuses(text) is None


def test_a_long_ordinary_text_passes_quickly(own):
    """The manual of Python, 65 thousand words."""
    text = " ".join(pydoc_data.topics.topics.values())
    start = time.perf_counter()
    assert own.refuses(text) is None
    assert time.perf_counter() - start < 20


def test_a_word_without_end_takes_neither_time_nor_memory(own):
    letters = "".join(random.Random(0).choices("abcdefgh", k=50_000))
    start = time.perf_counter()
    tracemalloc.start()
    for text in (letters, " ".join(letters), "中" * 50_000):
        assert own.refuses(text) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6 and time.perf_counter() - start < 10


def test_the_place_and_the_category_are_told_and_no_word(own):
    assert own.refuses("a red car and  genocide") == "word 5 (hate)"
    assert own.refuses("they film a\nschool shooting") == "words 4 to 5 (violence)"


def test_exact_entries_have_no_endings_and_no_disguises():
    words = Blocklist([Entry("zorble", "x", exact=True), Entry("quux plim", "x", exact=True)])
    assert words.refuses("a Zorble!") and words.refuses("QUUX  plim")
    for text in ("zorbles", "z0rble", "zorrble", "quux plims"):
        assert words.refuses(text) is None


def test_allowed_words_pass_by_themselves_and_count_in_phrases():
    words = Blocklist([Entry("zorble", "x"), Entry("zorbles crime", "y")], allowed=["Zorbles"])
    assert words.refuses("two zorbles") is None
    assert words.refuses("a zorble") == "word 2 (x)" and words.refuses("zorbles crime") == "words 1 to 2 (y)"


def test_scripts_without_spaces_are_searched_inside_sentences():
    words = Blocklist([Entry("坏词", "x"), Entry("плохо", "y")])
    assert words.refuses("一个 坏 词在这里") and words.refuses("здесь ПЛОХО!")
    assert words.refuses("неплохо") is None and words.refuses("好词") is None


def test_short_words_have_no_neighbours_and_ends_are_kept():
    words = Blocklist([Entry("crud", "x"), Entry("zorble", "x")])
    assert words.refuses("crrud") is None and words.refuses("curd") is None
    assert words.refuses("zorrble") and words.refuses("zrobles") is None
    assert words.refuses("azorble") is None and words.refuses("zorblex") is None and words.refuses("zormble")


def test_readings_edits_and_endings():
    assert fold("ＣＡＦÉ\u200d") == "cafe" and fold("İ") == "i" and fold("straße") == "strasse"
    assert {"sale", "5ale"} <= readings("5ale") and {"lit", "iit"} <= readings("1it")
    assert readings("plain") == {"plain"} and readings("12345") == {"12345"}
    assert one_edit_back("abcd") == {"acd", "abd", "acbd"}
    assert {"bake", "bakes", "baked", "baking"} <= inflected("bake") and {"tries", "tried"} <= inflected("try")
    assert (
        {"stopped", "stopping"} <= inflected("stop") and "boxes" in inflected("box") and "boxs" not in inflected("box")
    )


def test_a_list_of_the_user_has_comments_and_categories(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\ufeff# mine\nzorble\n\n[brand names]\n  Acme Corp \n#hashtag\n", encoding="utf-8")
    assert read_list(file) == [
        Entry("zorble", "your list"), Entry("Acme Corp", "brand names"), Entry("#hashtag", "brand names"),
    ]  # fmt: skip
    words = Blocklist(read_list(file))
    assert words.refuses("made by ACME corp.") == "words 3 to 4 (brand names)"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"", "got none"), (b"# only\n", "got none"), (b"\xff\xfe\0", "UTF-8")],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_list(tmp_path / "list.txt")


def test_a_folder_of_the_checkpoint_is_read_whole(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"# one\n\n[two]\n")
    (tmp_path / "b").write_bytes(b"caf\xe9 bar\n")
    (tmp_path / ".hidden").write_text("three")
    assert [entry.text for entry in read_folder(tmp_path, exact=True)] == ["# one", "[two]", "caf\ufffd bar"]
    assert read_folder(tmp_path / "absent") == []


def test_the_blocklist_needs_no_library():
    """As in the base install."""
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'PIL', 'safetensors'): sys.modules[name] = None\n"
        "from worldrt.runtime.safety import open_guard\n"
        "guard = open_guard(models=False)\n"
        "assert list(guard.frames(iter('abc'))) == ['a', 'b', 'c']\n"
        "guard.check_text('a red car')\n"
        "guard.check_text('cocaine')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and "BlockedError: prompt: the blocklist" in result.stderr
