"""The quick forms of the cleaning steps give what their plain forms give."""

from __future__ import annotations

import importlib
import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_cli.data.cleaning import steps, web_quality

WORDS = [
    "the",
    "of",
    "Of.",
    "sea",
    "ship",
    "ship,",
    "a1",
    "1234",
    "²",
    "…",
    "#",
    "and",
    "ΑΣ",
    "x_",
    "it's",
    "-",
    "日本",
]
PARTS = [
    *("me@example.org", "a@b", "192.168.0.1", "1.2", "10.0.0.256", "+49 (0)30 1234567", "555-123-4567", "2024-01-15"),
    *(
        "naïve",
        "Ã¼ber",
        "&amp;",
        "<b>",
        "\x1b[0m",
        "\x07",
        "\x85",
        "\r\n",
        "“x”",
        "ﬁn",
        "a b",
        "\n",
        "\t",
        "12 345 678 901",
    ),
]
GARBLED = [
    "Ã¼",
    "â€œ",
    "â€™",
    "Â£5",
    "voilÃ ",
    "à£",
    "É”",
    "„Ä",
    "Ñƒ",
    "é",
    "”",
    "’",
    "—",
    "…",
    "Ã",
    "Â",
    "€",
    "\n",
    " ",
]
texts = st.lists(st.one_of(st.sampled_from([*WORDS, *PARTS]), st.text(max_size=8)), max_size=60).map(" ".join)


def plain_gopher_repetition(text: str) -> str:
    for name, separator in (("line", "\n"), ("paragraph", "\n\n")):
        passages = [passage.strip() for passage in text.split(separator) if passage.strip()]
        counts = Counter(passages)
        if len(passages) - len(counts) > 0.3 * len(passages):
            return f"gopher_repeated_{name}s"
        if sum(len(passage) * (times - 1) for passage, times in counts.items()) > 0.2 * len(text):
            return f"gopher_repeated_{name}_characters"
    words = text.split()
    for n, share in web_quality.TOP_GRAMS:
        grams = Counter(zip(*(words[start:] for start in range(n)), strict=False))
        if grams:
            gram, times = grams.most_common(1)[0]
            if times > 1 and times * sum(map(len, gram)) > share * len(text):
                return f"gopher_top_{n}_gram"
    for n, share in web_quality.REPEATED_GRAMS:
        if web_quality._repeated_characters(words, n) > share * len(text):
            return f"gopher_repeated_{n}_grams"
    return ""


def plain_gopher_end(words: list[str]) -> str:
    if sum(any(c.isalpha() for c in word) for word in words) < 0.8 * len(words):
        return "gopher_alphabetic"
    stop = web_quality.STOP_WORDS & {word.lower().strip(".,;:!?") for word in words}
    return "gopher_stop_words" if len(stop) < 2 else ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9**9))
def test_repetition_is_judged_as_by_counting_every_gram(seed: int) -> None:
    draw = random.Random(seed)
    vocabulary = [str(draw.randrange(10 ** draw.randrange(1, 9))) for _ in range(draw.choice([8, 40, 400]))]
    text = "".join(draw.choice(vocabulary) + draw.choice([" ", " ", " ", "\n"]) for _ in range(draw.randrange(5, 400)))
    if draw.random() < 0.5:
        words = text.split()
        at, many = draw.randrange(len(words)), draw.randrange(2, 12)
        text += " and ".join([" ".join(words[at : at + many])] * draw.randrange(1, 12))
    assert web_quality.gopher_repetition(text)[1] == plain_gopher_repetition(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=50, max_size=90))
def test_words_are_judged_as_one_by_one(words: list[str]) -> None:
    reason = web_quality.gopher_quality(" ".join(words))[1]
    if reason in ("", "gopher_alphabetic", "gopher_stop_words"):
        assert reason == plain_gopher_end(words)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_steps_that_look_first_change_what_they_changed_before(text: str) -> None:
    plain = steps.PHONE.sub(steps._phone, steps.IP.sub("<ip>", steps.EMAIL.sub("<email>", text)))
    assert steps.personal_data(text)[0] == plain
    assert steps.control(text)[0] == "".join(c for c in text if c in "\t\n\r" or unicodedata.category(c) != "Cc")


@settings(max_examples=200, deadline=None)
@given(texts)
def test_ftfy_sees_all_that_it_would_change(text: str) -> None:
    library = pytest.importorskip("ftfy")
    assert steps.ftfy(text)[0] == library.fix_text(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(GARBLED), st.text("abc xyz.,", max_size=20)), max_size=12).map("".join))
def test_ftfy_finds_mojibake_wherever_it_stands(text: str) -> None:
    library = pytest.importorskip("ftfy")
    assert steps.ftfy(text)[0] == library.fix_text(text)


def test_what_ftfy_takes_for_mojibake_is_as_short_as_its_windows_are_wide() -> None:
    badness = pytest.importorskip("ftfy.badness")
    parser = importlib.import_module("re._parser")
    widest = parser.parse(badness.BADNESS_RE.pattern, badness.BADNESS_RE.flags).getwidth()[1]
    assert widest <= steps.MOJIBAKE + 1
