"""Words of a text as a reader sees them: without case, accents, look-alike letters, digits for letters and the like."""

from __future__ import annotations

import re
import unicodedata

_LOOK_ALIKES = str.maketrans(
    "авекмнорстухѕіјԁԛԝһӏαβεηικνορτυχωı",  # Cyrillic, then Greek, then a Turkish one
    "abekmhopctyxsijdqwhlabenikvoptuxwi",
)
_LEET = [str.maketrans("0134578@$!|+€£", f"o{one}eastbasi{one}tel") for one in "il"]
_SPLIT = re.compile(r"[^\w@$!|+€£*]+|_+")
_OUTER = "".join(chr(c) for c in range(33, 127) if not chr(c).isalnum() and chr(c) not in "@$") + "«»“”„‘’…–—¡¿"
_MARKS = re.compile(  # accents, and what is not seen at all
    "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
_MANY = re.compile(r"(.)\1{2,}")


def fold(text: str) -> str:
    """NFKC, no case, no accents, no invisible characters."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = _MARKS.sub("", unicodedata.normalize("NFD", plain))
    return "".join(c for c in unicodedata.normalize("NFC", plain) if unicodedata.category(c) != "Cf")


def parts(chunk: str) -> list[str]:
    """The words of a folded piece of text without spaces: `well-known` has two."""
    return [found for part in _SPLIT.split(chunk.strip(_OUTER)) if (found := part.strip(_OUTER))]


def joined(chunk: str) -> str:
    """The piece as one word, what stands between its words left out."""
    return "".join(parts(chunk))


def readings(word: str) -> set[str]:
    """The words that a folded word may be read as, itself among them."""
    if word.isascii() and word.isalpha() and not _MANY.search(word):
        return {word}
    found = {word}
    look = word.translate(_LOOK_ALIKES)
    if look.isascii() and (len(word) > 3 or re.search("[a-z]", word)):
        found.add(look)
    found |= {w.strip("0123456789") for w in found if not w.isdecimal()}
    found |= {w.translate(table) for w in found if re.search("[a-z]", w) for table in _LEET}
    return found | {_MANY.sub(r"\1" * kept, w) for w in found for kept in (1, 2)}


def inflected(word: str) -> set[str]:
    """An English word with its endings: plural, -ed, -ing. Some of them are no words, and then nobody writes them."""
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return {word}
    stems = {word, word[:-1]} if word[-1] == "e" else {word, word + word[-1]}
    plural = word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")
    found = {word, plural} | {stem + end for stem in stems for end in ("ed", "ing", "ings")}
    return found | ({word[:-1] + "ies", word[:-1] + "ied"} if word[-1] == "y" else set())


def one_edit_back(word: str) -> set[str]:
    """The words that a longer or jumbled one comes from, by one letter inserted or two neighbours swapped, its first
    and last letters kept (`heroine` is not taken for another word with an e at its end)."""
    inner = range(1, len(word) - 1)
    inserted = {word[:i] + word[i + 1 :] for i in inner}
    return inserted | {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in inner if i + 2 < len(word)}


def unspaced(text: str) -> bool:
    """Whether a text is of a script that puts no spaces between words."""
    return any(unicodedata.east_asian_width(c) in "WF" for c in text)
