"""Each cleaning step keeps, changes or drops by its published rule."""

from __future__ import annotations

import pytest

from pretrain_cli.data.cleaning.steps import Cleaner
from pretrain_cli.errors import ConfigError

SENTENCES = [
    "The father of the house walked down to the harbour with a letter in his coat.",
    "Nobody else had read it, and he meant to keep it that way until the ship came in.",
    "Rain was falling on the roofs, so the market closed early and people hurried home.",
    "My sister bought four oranges, two candles and a map of an island she will never see.",
    "When the clock struck seven, all of the lamps along our street were lit at once.",
    "You have to know that my uncle sailed to Peru before I could speak or stand.",
    "His stories were long; we listened with our mouths open and forgot to eat.",
    "A dog barked twice behind the bakery, then silence settled over everything again.",
    "Whoever finds this notebook should return it to the library near the old bridge.",
    "Tomorrow they will paint its door green, because blue reminds them of winter.",
]
GOOD = "\n".join(SENTENCES)
DISTINCT = " ".join(f"the{i} and{i} of{i} that{i}" for i in range(40))
DATES = "In 1914-1918, on 2024-01-15 10:30, 1 000 000 000 at 3.141592653, ISBN 978-3-16-148410-0, id 123456789012."
TEN = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("step", "text", "reason"),
    [
        ("min-length", "short", "too_short"),
        ("gopher-quality", "the and of " * 10, "gopher_word_count"),
        ("gopher-quality", "a b the of " * 20, "gopher_mean_word_length"),
        ("gopher-quality", GOOD + " #" * 30, "gopher_symbols"),
        ("gopher-quality", "\n".join(f"- {line}" for line in SENTENCES), "gopher_bullets"),
        ("gopher-quality", "\n".join(f"{line}…" for line in SENTENCES), "gopher_ellipses"),
        ("gopher-quality", GOOD + " 1234" * 60, "gopher_alphabetic"),
        ("gopher-quality", "Das Haus steht dort drüben " * 12, "gopher_stop_words"),
        ("gopher-repetition", GOOD + "\nyes" * 12, "gopher_repeated_lines"),
        ("gopher-repetition", GOOD + "\n" + "\n".join(SENTENCES[:3]), "gopher_repeated_line_characters"),
        ("gopher-repetition", DISTINCT + "\n\n\na\n\nb\nc\n\na\n\nb\nc", "gopher_repeated_lines"),
        ("gopher-repetition", DISTINCT + "".join(f" go on {n}" for n in range(200)), "gopher_top_2_gram"),
        ("gopher-repetition", f"{DISTINCT} {TEN} x {TEN} y {TEN} z {TEN}", "gopher_repeated_10_grams"),
        ("c4", GOOD + " Lorem ipsum.", "c4_lorem_ipsum"),
        ("c4", GOOD + " function() {}", "c4_brace"),
        ("c4", "Home\nMenu\n" + SENTENCES[0], "c4_few_sentences"),
        ("fineweb", "\n".join(line[:-1] for line in SENTENCES), "fineweb_punctuation"),
        ("fineweb", GOOD + "\n" + SENTENCES[0] + "\n" + SENTENCES[1], "fineweb_repeated_lines"),
        ("fineweb", GOOD + "\n" + "\n".join(f"{n} short." for n in range(30)), "fineweb_short_lines"),
    ],
)
def test_a_rule_drops_what_it_is_for_and_nothing_else(step: str, text: str, reason: str) -> None:
    assert Cleaner([step]).apply(text)[1] == reason
    kept, none = Cleaner([step]).apply(GOOD)
    assert none == "" and kept == GOOD


def test_c4_takes_lines_out() -> None:
    page = "\n".join(["Home | About", *SENTENCES, "Please enable JavaScript to see the page.", "We use cookies here."])
    assert Cleaner(["c4"]).apply(page.replace("father", "father[12]")) == (GOOD, "")


@pytest.mark.parametrize(
    ("step", "text", "kept"),
    [
        ("ftfy", "voilÃ  une piÃ¨ce", "voilà une pièce"),
        ("nfc", "e\u0301", "é"),
        ("newlines", "a\r\nb\rc\n", "a\nb\nc\n"),
        ("control", "a\x00b\x1b[31m\tc\n", "ab[31m\tc\n"),
        ("personal-data", "Ask jo.doe+x@mail.example.org, 10.0.0.5, +49 (30) 1234-5678", "Ask <email>, <ip>, <phone>"),
        ("personal-data", DATES, DATES),
    ],
)  # fmt: skip
def test_a_step_changes_what_it_is_for(step: str, text: str, kept: str) -> None:
    if step == "ftfy":
        pytest.importorskip("ftfy")
    assert Cleaner([step]).apply(text) == (kept, "")


def test_a_language_is_kept_and_others_are_dropped() -> None:
    pytest.importorskip("py3langid")
    cleaner = Cleaner(["language:en"])
    assert cleaner.apply(GOOD)[1] == ""
    assert cleaner.apply("Der Kapitän ging mit einem Brief zum Hafen, den niemand sonst gelesen hatte.")[1]


def test_an_unknown_step_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        Cleaner(["gopher"])
    assert "gopher-quality" in caught.value.hint


def test_a_document_of_which_nothing_is_left_is_dropped_by_name() -> None:
    assert Cleaner(["control"]).apply("\x00\x01 ")[1] == "emptied_by_cleaning"
