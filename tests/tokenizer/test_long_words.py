"""Words without end take seconds, and every reader of a tokenizer splits them alike."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pretrain_cli.data.encoding.encoder import Encoder, EncoderSettings
from pretrain_cli.data.encoding.fast_engine import FastEngine
from pretrain_cli.tokenizer.long_words import LONGEST_WORD, may_hold_long_word
from pretrain_cli.tokenizer.train import train_tokenizer
from tests.support.tiny import SAMPLE


def letters(alphabet: str, size: int) -> str:
    return "".join(random.Random(0).choices(alphabet, k=size))


LONG = {
    "one letter": "a" * 30_000,
    "a rule": "=" * 30_000,
    "DNA": letters("ACGT", 30_000),
    "Chinese": letters("的一是不了人我在有他这为之大来以个中上们", 30_000),
    "spaces": " " * 30_000 + "a",
    "newlines": "\n" * 30_000,
    "marks": "e\u0301" + "\u0301" * 30_000,
    "mixed": "x" * 255 + " " + "y" * 256 + " " + "z" * 257 + "=" * 300 + "w\n\n" + " " * 700 + "v1" * 400,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([SAMPLE * 20, *(text[:3000] for text in LONG.values())], 1000, folder)
    return folder


def test_training_on_words_without_end_takes_seconds(tmp_path: Path) -> None:
    started = time.process_time()
    train_tokenizer([SAMPLE, *LONG.values()], 512, tmp_path)
    assert time.process_time() - started < 4  # 30 without a limit, growing with the square of the length


@pytest.mark.slow
def test_much_text_of_long_words_takes_little_longer_than_a_part_of_it(tmp_path: Path) -> None:
    text = letters("ACGT", 3 << 20)
    started = time.process_time()
    train_tokenizer([SAMPLE, *(text[at : at + 65_536] for at in range(0, len(text), 65_536))], 512, tmp_path)
    assert time.process_time() - started < 10


def test_every_reader_of_the_tokenizer_splits_a_long_word_alike(tokenizer: Path) -> None:
    own = AutoTokenizer.from_pretrained(tokenizer)
    settings_ = EncoderSettings(tokenizer / "tokenizer.json", "fastokens", False, "")
    fast, exact = Encoder(settings_), Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    everything = [*LONG.values(), SAMPLE, *LONG.values()]
    ids, offsets = fast.encode(everything)
    for place, text in enumerate(everything):
        expected = exact.encode(text, add_special_tokens=False).ids
        assert ids[offsets[place] : offsets[place + 1]].tolist() == expected
        assert own(text, add_special_tokens=False)["input_ids"] == expected
        assert own.decode(expected) == text


def test_a_word_is_split_where_the_file_says(tokenizer: Path) -> None:
    spec = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    assert spec["pre_tokenizer"]["pretokenizers"][1]["pattern"]["Regex"] == rf"[\s\S]{{{LONGEST_WORD}}}"
    exact = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    word = letters("ACGT", 5 * LONGEST_WORD)
    pieces = [word[at : at + LONGEST_WORD] for at in range(0, len(word), LONGEST_WORD)]
    apart = [exact.encode(piece, add_special_tokens=False).ids for piece in pieces]
    assert exact.encode(word, add_special_tokens=False).ids == [index for piece in apart for index in piece]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab é1²½Ⅷ字'’=_\n\r\t \u0301\u00a0\u3000\U0001f469"), max_size=60), st.integers(2, 8))
def test_what_is_taken_for_short_words_holds_no_longer_one(text: str, limit: int) -> None:
    from tokenizers import Regex, pre_tokenizers

    from pretrain_cli.tokenizer.long_words import SPLIT

    words = pre_tokenizers.Split(Regex(SPLIT), "isolated").pre_tokenize_str(text)
    if not may_hold_long_word(text, limit):
        assert max((len(word) for word, _ in words), default=0) <= limit


def test_ordinary_text_is_known_to_hold_no_long_word() -> None:
    code = "def f(x):\n    if x:\n        return {'a': [1, 2, 3]}  # " + "-" * 60 + "\n"
    for text in (SAMPLE * 50, code * 50, "数据，是。" * 500, "https://example.org/a/b?c=d" * 40, "1234567890" * 100):
        assert not may_hold_long_word(text, LONGEST_WORD), text[:40]
    assert all(may_hold_long_word(text, LONGEST_WORD) for text in LONG.values())


def test_a_tokenizer_made_before_the_limit_gives_the_ids_it_gave(tokenizer: Path, tmp_path: Path) -> None:
    spec = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    del spec["pre_tokenizer"]["pretokenizers"][1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    exact = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids, offsets = FastEngine(tmp_path / "tokenizer.json").encode(list(LONG.values()), False)
    for place, text in enumerate(LONG.values()):
        expected = exact.encode(text, add_special_tokens=False).ids
        assert np.array_equal(ids[offsets[place] : offsets[place + 1]], expected)
